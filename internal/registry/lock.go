package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// lease is a key in Redis that at most one holder has at a time, as long as
// nobody's clock or network stands still. What depends on it must be right
// without it: the log is ordered, and the script refuses what does not fit.
type lease struct {
	rdb    redis.UniversalClient
	script *redis.Script
	key    string
	token  string
	ttl    time.Duration
}

func newLease(rdb redis.UniversalClient, key string, ttl time.Duration) *lease {
	return &lease{rdb: rdb, script: redis.NewScript(compareSource), key: key, token: rand.Text(), ttl: ttl}
}

// acquire reports whether the lease was free and now is ours. The client sends a
// command again whose answer was lost, and then finds our own token there.
func (l *lease) acquire(ctx context.Context) (bool, error) {
	there, err := l.rdb.SetArgs(ctx, l.key, l.token, redis.SetArgs{Mode: "NX", Get: true, TTL: l.ttl}).Result()
	if errors.Is(err, redis.Nil) {
		return true, nil
	}
	return there == l.token, err
}

// renew reports whether the lease is still ours and now lasts a full time.
func (l *lease) renew(ctx context.Context) (bool, error) {
	n, err := runOne(ctx, l.rdb, l.script, call{keys: []string{l.key}, args: []any{l.token, l.ttl.Milliseconds()}})
	return n == 1, err
}

// releaseWait bounds the try to give a lease back early; it ends by itself. A slow
// Redis is waited for: a tenant whose lock was left behind is busy for ten seconds.
const releaseWait = 2 * time.Second

// release gives the lease back, if it is still ours, also when ctx has ended.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	_, _ = runOne(ctx, l.rdb, l.script, call{keys: []string{l.key}, args: []any{l.token}})
}
