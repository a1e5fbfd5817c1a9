package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions says what Redis to start.
type RedisOptions struct {
	Dir string // for its dump and log; "" means a temporary folder that Stop removes
}

// Redis is one real Redis server: noeviction, and nothing is saved unless asked.
type Redis struct {
	URL  string // redis://127.0.0.1:port/0
	port int
	dir  string
	temp bool
	proc *process

	flags    []string // further ones
	sentinel string   // its configuration file; else this is a server
}

// redisWait bounds start and save.
const redisWait = 20 * time.Second

// StartRedis starts redis-server on a free port and returns when it answers. As
// root on a system with apt-get it installs a missing redis-server.
func StartRedis(ctx context.Context, opts RedisOptions) (*Redis, error) {
	if err := needRedis(ctx); err != nil {
		return nil, err
	}
	ports, err := FreePorts(1)
	if err != nil {
		return nil, err
	}
	r := &Redis{URL: "redis://127.0.0.1:" + strconv.Itoa(ports[0]) + "/0", port: ports[0], dir: opts.Dir}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "postrider-redis-"); err != nil {
			return nil, fmt.Errorf("make a folder for Redis: %w", err)
		}
		r.temp = true
	}
	if err := r.Start(ctx); err != nil {
		r.Stop()
		return nil, err
	}
	return r, nil
}

func needRedis(ctx context.Context) error {
	if _, err := exec.LookPath("redis-server"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return errors.New("no redis-server")
	}
	if err := run(ctx, "apt-get", "install", "-y", "-q", "--no-install-recommends", "redis-server"); err != nil {
		return fmt.Errorf("no redis-server: %w", err)
	}
	return nil
}

// Start starts the server again after Kill, on its old port; it loads what
// SaveDump saved, if anything.
func (r *Redis) Start(ctx context.Context) error {
	args := append([]string{
		"--port", strconv.Itoa(r.port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--daemonize", "no", "--dir", r.dir,
	}, r.flags...)
	if r.sentinel != "" {
		args = []string{r.sentinel, "--sentinel"}
	}
	p, err := launch(ctx, r.logFile(), "redis-server", args...)
	if err != nil {
		return err
	}
	r.proc = p
	err = r.when(ctx, func(ctx context.Context, cl *redis.Client) error { return cl.Ping(ctx).Err() })
	if err != nil {
		return fmt.Errorf("wait for redis: %w", err)
	}
	return nil
}

// SaveDump writes the data to disk: the next Start after a Kill goes back to it.
func (r *Redis) SaveDump(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	if err := r.with(func(cl *redis.Client) error { return cl.Save(ctx).Err() }); err != nil {
		return fmt.Errorf("save redis: %w", err)
	}
	return nil
}

// DropDump forgets what SaveDump saved: the next Start begins empty.
func (r *Redis) DropDump() error {
	if err := os.Remove(filepath.Join(r.dir, "dump.rdb")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("drop redis dump: %w", err)
	}
	return nil
}

// Kill ends the server like kill -9 and returns when it is gone.
func (r *Redis) Kill() { r.proc.kill() }

// Pause stops the server in its tracks: its connections stay, nothing answers.
func (r *Redis) Pause() error { return r.proc.pause() }

// Resume lets a paused server go on.
func (r *Redis) Resume() error { return r.proc.resume() }

// gone reports whether the server has ended.
func (r *Redis) gone() bool {
	select {
	case <-r.proc.done:
		return true
	default:
		return false
	}
}

// Pid returns the process id of the running server.
func (r *Redis) Pid() int { return r.proc.pid() }

// Stop kills the server and removes a temporary folder.
func (r *Redis) Stop() {
	if r.proc != nil {
		r.proc.kill()
	}
	if r.temp {
		_ = os.RemoveAll(r.dir) // it is in the temporary folder anyway
	}
}

// when waits until ready returns nil.
func (r *Redis) when(ctx context.Context, ready func(context.Context, *redis.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	err := r.proc.await(ctx, func(ctx context.Context) error {
		return r.with(func(cl *redis.Client) error { return ready(ctx, cl) })
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(r.logFile()))
	}
	return nil
}

// with runs fn with a client of its own, so that nothing is left over.
func (r *Redis) with(fn func(*redis.Client) error) error {
	cl := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + strconv.Itoa(r.port), MaxRetries: -1})
	return errors.Join(fn(cl), cl.Close())
}

func (r *Redis) logFile() string { return filepath.Join(r.dir, "redis.log") }
