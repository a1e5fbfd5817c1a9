package main

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/postrider/postrider/internal/broker"
)

// stageKey labels the metrics of what is unread; its values are the consumer groups.
const stageKey = attribute.Key("postrider.stage")

// stage is what reads topics as one consumer group.
type stage struct {
	group     string
	age       func() time.Duration // of the oldest unread record
	retention time.Duration
}

// addStage has this process find out how old the oldest record is that a stage has
// not done with. parked tells of those that it has set aside; nil: none.
func (p *process) addStage(group string, topics []string, parked func() time.Duration) {
	u := broker.NewUnread(p.kafka, group, p.log, topics...)
	p.back = append(p.back, loop{"unread " + group, u.Run})
	age := u.Age
	if parked != nil {
		age = func() time.Duration { return max(u.Age(), parked()) }
	}
	p.stages = append(p.stages, stage{group, age, u.Retention()})
}

// observeUnread registers the metrics of the stages: the age, and its share of the
// retention, at which Kafka deletes what is unread.
func (p *process) observeUnread(m metric.Meter) error {
	if len(p.stages) == 0 {
		return nil
	}
	age, err1 := m.Float64ObservableGauge("postrider.unread.age", metric.WithUnit("s"),
		metric.WithDescription("Age of the oldest record that a stage has not done with, parked ones included."))
	share, err2 := m.Float64ObservableGauge("postrider.unread.share", metric.WithDescription("postrider.unread.age as a share of the retention: at 1 Kafka deletes what is unread."))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range p.stages {
			is, label := s.age(), metric.WithAttributes(stageKey.String(s.group))
			o.ObserveFloat64(age, is.Seconds(), label)
			o.ObserveFloat64(share, is.Seconds()/s.retention.Seconds(), label)
		}
		return nil
	}, age, share)
	return err
}
