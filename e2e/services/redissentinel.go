package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// RedisSentinel is a Redis with a replica, and three Sentinels that make the
// replica the master when the master is gone for two seconds.
type RedisSentinel struct {
	URL       string // redis://host:port?master_name=…&addr=…, of the Sentinels
	Servers   []*Redis
	sentinels []*Redis
	dir       string
}

// masterName is the name of the master in the Sentinels' configuration.
const masterName = "postrider"

// StartRedisSentinel returns when every Sentinel knows the replica and the other
// two Sentinels.
func StartRedisSentinel(ctx context.Context) (*RedisSentinel, error) {
	if err := needRedis(ctx); err != nil {
		return nil, err
	}
	s := &RedisSentinel{}
	if err := s.start(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *RedisSentinel) start(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "postrider-redis-"); err != nil {
		return fmt.Errorf("make a folder for Redis: %w", err)
	}
	ports, err := FreePorts(5)
	if err != nil {
		return err
	}
	for i, port := range ports {
		node := &Redis{URL: "redis://" + local(port), port: port, dir: filepath.Join(s.dir, strconv.Itoa(i))}
		if err := os.Mkdir(node.dir, 0o700); err != nil {
			return fmt.Errorf("make a folder for Redis: %w", err)
		}
		switch {
		case i < 2:
			if node.flags = []string{"--repl-diskless-sync-delay", "0"}; i == 1 {
				node.flags = append(node.flags, "--replicaof", "127.0.0.1 "+strconv.Itoa(ports[0]))
			}
			s.Servers = append(s.Servers, node)
		default:
			node.sentinel = filepath.Join(node.dir, "sentinel.conf")
			conf := fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 2\n"+
				"sentinel down-after-milliseconds %[3]s 2000\nsentinel failover-timeout %[3]s 5000\n", port, node.dir, masterName, ports[0])
			if err := os.WriteFile(node.sentinel, []byte(conf), 0o600); err != nil {
				return fmt.Errorf("configure a sentinel: %w", err)
			}
			s.sentinels = append(s.sentinels, node)
		}
		if err := node.Start(ctx); err != nil {
			return err
		}
	}
	for _, sentinel := range s.sentinels {
		if err := hurry(ctx, sentinel); err != nil {
			return err
		}
	}
	s.URL = "redis://" + local(ports[2]) + "?master_name=" + masterName + "&addr=" + local(ports[3]) + "&addr=" + local(ports[4])
	return s.Await(ctx)
}

// hurry lets a Sentinel look at its servers more often. By default it would ask a
// master that comes back for its role only every 10 s and make it a replica after
// up to forty; ping a server each second, so that one late answer right after a
// failover begins the next one; and sit out a stall of the machine for 30 s (TILT).
func hurry(ctx context.Context, sentinel *Redis) error {
	err := sentinel.with(func(cl *redis.Client) error {
		return cl.Do(ctx, "sentinel", "debug", "ping-period", 200, "info-period", 500, "publish-period", 500, "tilt-period", 1000).Err()
	})
	if err != nil {
		return fmt.Errorf("set a sentinel's periods: %w", err)
	}
	return nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Await waits until every Sentinel knows the other two and a replica that is in
// sync.
func (s *RedisSentinel) Await(ctx context.Context) error {
	for _, sentinel := range s.sentinels {
		if err := sentinel.when(ctx, s.whole); err != nil {
			return fmt.Errorf("wait for the sentinels: %w", err)
		}
	}
	return nil
}

func (s *RedisSentinel) whole(ctx context.Context, cl *redis.Client) error {
	others, err := cl.Do(ctx, "sentinel", "sentinels", masterName).Slice()
	if err != nil {
		return err
	}
	replicas, err := cl.Do(ctx, "sentinel", "replicas", masterName).Slice()
	if err != nil {
		return err
	}
	if state := fmt.Sprint(replicas); len(others) != 2 || !strings.Contains(state, "master-link-status:ok") {
		return fmt.Errorf("not whole: %d other sentinels, replicas %s", len(others), state)
	}
	return nil
}

// Failover kills the master and returns it when all Sentinels name the other
// server.
func (s *RedisSentinel) Failover(ctx context.Context) (killed *Redis, err error) {
	before, err := s.master(ctx, s.sentinels[0])
	if err != nil {
		return nil, err
	}
	before.Kill()
	for _, sentinel := range s.sentinels {
		err := sentinel.when(ctx, func(ctx context.Context, _ *redis.Client) error {
			if now, err := s.master(ctx, sentinel); err != nil || now == before {
				return errors.Join(errors.New("no other master yet"), err)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("wait for another master: %w", err)
		}
	}
	return before, nil
}

// master returns the server that a Sentinel names.
func (s *RedisSentinel) master(ctx context.Context, sentinel *Redis) (*Redis, error) {
	var address []string
	err := sentinel.with(func(cl *redis.Client) (err error) {
		address, err = cl.Do(ctx, "sentinel", "get-master-addr-by-name", masterName).StringSlice()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask a sentinel: %w", err)
	}
	for _, server := range s.Servers {
		if len(address) == 2 && address[1] == strconv.Itoa(server.port) {
			return server, nil
		}
	}
	return nil, fmt.Errorf("the sentinel names %q", address)
}

// Stop kills all processes and removes their data.
func (s *RedisSentinel) Stop() {
	for _, node := range append(s.sentinels, s.Servers...) {
		node.Stop()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // it is in the temporary folder anyway
	}
}
