package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/e2e/services"
)

// startEngines finds Kafka and Redis in the environment, or starts what is not
// there. Redis must be empty or of an earlier run: a gateway has one to itself.
func (b *bench) startEngines(ctx context.Context) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range slices.Backward(stops) {
			s()
		}
	}
	b.setup.prefix = "bench" + strconv.FormatInt(time.Now().Unix(), 36) + "."
	b.setup.brokers, b.setup.redis = os.Getenv(services.KafkaEnv), os.Getenv(services.RedisEnv)
	if b.setup.brokers == "" {
		b.say("starting Kafka")
		k, err := services.StartKafka(ctx, services.Options{})
		if err != nil {
			return nil, fmt.Errorf("start Kafka: %w", err)
		}
		stops = append(stops, k.Stop)
		b.setup.brokers = strings.Join(k.Brokers, ",")
	} else {
		stops = append(stops, func() { b.clean(context.WithoutCancel(ctx)) })
	}
	if b.setup.redis == "" {
		b.say("starting Redis")
		r, err := services.StartRedis(ctx, services.RedisOptions{})
		if err != nil {
			stop()
			return nil, fmt.Errorf("start Redis: %w", err)
		}
		stops = append(stops, r.Stop)
		b.setup.redis = r.URL
	}
	return stop, nil
}

// clean deletes the topics and groups of this run from a Kafka that stays.
func (b *bench) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := b.deleteAll(ctx); err != nil {
		b.say("delete topics %s*: %s", b.setup.prefix, err)
	}
}

func (b *bench) deleteAll(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.setup.brokers, ",")...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	foreign := func(name string) bool { return !strings.HasPrefix(name, b.setup.prefix) }
	groups, err := admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	if names := slices.DeleteFunc(groups.Groups(), foreign); len(names) > 0 {
		if _, err := admin.DeleteGroups(ctx, names...); err != nil {
			return err
		}
	}
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Collect(maps.Keys(topics)), foreign)
	if len(names) == 0 {
		return nil
	}
	_, err = admin.DeleteTopics(ctx, names...)
	return err
}
