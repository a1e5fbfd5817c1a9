package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisCluster is a Redis Cluster: masters that share the slots, and one replica
// of each.
type RedisCluster struct {
	URL   string   // redis://host:port?addr=host:port&…, of all nodes
	Nodes []*Redis // the masters as they began, then their replicas in the same order
	dir   string
}

// slots is how many slots a cluster has.
const slots = 16_384

// StartRedisCluster starts as many masters as asked for, at least three, each
// with a replica, and returns when all slots are served and every replica is in
// sync.
func StartRedisCluster(ctx context.Context, masters int) (*RedisCluster, error) {
	if masters < 3 {
		return nil, fmt.Errorf("a redis cluster of %d masters can't elect one", masters)
	}
	if err := needRedis(ctx); err != nil {
		return nil, err
	}
	c := &RedisCluster{}
	if err := c.start(ctx, masters); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *RedisCluster) start(ctx context.Context, masters int) error {
	var err error
	if c.dir, err = os.MkdirTemp("", "postrider-redis-"); err != nil {
		return fmt.Errorf("make a folder for Redis: %w", err)
	}
	count := 2 * masters
	ports, err := FreePorts(2 * count)
	if err != nil {
		return err
	}
	addresses := make([]string, count)
	for i := range count {
		dir := filepath.Join(c.dir, strconv.Itoa(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make a folder for Redis: %w", err)
		}
		addresses[i] = local(ports[i])
		node := &Redis{
			URL: "redis://" + addresses[i], port: ports[i], dir: dir,
			flags: []string{"--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports[count+i]), "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"},
		}
		if err := node.Start(ctx); err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, node)
	}
	c.URL = "redis://" + addresses[0] + "?addr=" + strings.Join(addresses[1:], "&addr=")
	return c.join(ctx, ports, masters)
}

// join makes one cluster of the nodes. Their buses listen on the second half of
// the ports.
func (c *RedisCluster) join(ctx context.Context, ports []int, masters int) error {
	ids := make([]string, len(c.Nodes))
	for i, node := range c.Nodes {
		err := node.with(func(cl *redis.Client) (err error) {
			if ids[i], err = cl.Do(ctx, "cluster", "myid").Text(); err != nil {
				return err
			}
			if i < masters {
				err = cl.ClusterAddSlotsRange(ctx, i*slots/masters, (i+1)*slots/masters-1).Err()
			}
			return errors.Join(err, cl.Do(ctx, "cluster", "meet", "127.0.0.1", ports[0], ports[len(c.Nodes)]).Err())
		})
		if err != nil {
			return fmt.Errorf("make a redis cluster: %w", err)
		}
	}
	for i, node := range c.Nodes[masters:] {
		// A node is refused as long as this one has not heard of its master.
		err := node.when(ctx, func(ctx context.Context, cl *redis.Client) error { return cl.ClusterReplicate(ctx, ids[i]).Err() })
		if err != nil {
			return fmt.Errorf("make a replica in the redis cluster: %w", err)
		}
	}
	return c.Await(ctx)
}

// Await waits until every running node sees all slots served and its replica or
// master in sync.
func (c *RedisCluster) Await(ctx context.Context) error {
	for _, node := range c.Nodes {
		if node.gone() {
			continue
		}
		if err := node.when(ctx, healthy); err != nil {
			return fmt.Errorf("wait for the redis cluster: %w", err)
		}
	}
	return nil
}

// healthy returns an error as long as a node misses slots or, as a replica, its
// master.
func healthy(ctx context.Context, cl *redis.Client) error {
	state, err := cl.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	replication, err := cl.Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	if !strings.Contains(state, "cluster_state:ok") || strings.Contains(replication, "master_link_status:down") {
		return fmt.Errorf("not whole: %s, %s", state, replication)
	}
	return nil
}

// Failover kills the node that serves a key's slot and returns it when another
// serves the slot.
func (c *RedisCluster) Failover(ctx context.Context, key string) (killed *Redis, err error) {
	if killed, err = c.masterOf(ctx, key); err != nil {
		return nil, err
	}
	killed.Kill()
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	for {
		if _, err = c.masterOf(ctx, key); err == nil {
			return killed, c.Await(ctx)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// masterOf returns the node that serves a key's slot.
func (c *RedisCluster) masterOf(ctx context.Context, key string) (*Redis, error) {
	errs := []error{fmt.Errorf("nobody serves %q", key)}
	for _, node := range c.Nodes {
		if node.gone() {
			continue
		}
		err := node.with(func(cl *redis.Client) error { return cl.Type(ctx, key).Err() })
		if err == nil {
			return node, nil
		}
		errs = append(errs, err) // as a rule MOVED
	}
	return nil, errors.Join(errs...)
}

// Stop kills all nodes and removes their data.
func (c *RedisCluster) Stop() {
	for _, node := range c.Nodes {
		node.Stop()
	}
	if c.dir != "" {
		_ = os.RemoveAll(c.dir) // it is in the temporary folder anyway
	}
}
