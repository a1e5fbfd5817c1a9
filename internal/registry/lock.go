package registry

import (
	"context"
	"crypto/rand"
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

// acquire reports whether the lease was free and now is ours.
func (l *lease) acquire(ctx context.Context) (bool, error) {
	return l.rdb.SetNX(ctx, l.key, l.token, l.ttl).Result()
}

// renew reports whether the lease is still ours and now lasts a full time.
func (l *lease) renew(ctx context.Context) (bool, error) {
	n, err := runOne(ctx, l.rdb, l.script, call{keys: []string{l.key}, args: []any{l.token, l.ttl.Milliseconds()}})
	return n == 1, err
}

// releaseWait bounds the try to give a lease back early; it ends by itself.
const releaseWait = 500 * time.Millisecond

// release gives the lease back, if it is still ours, also when ctx has ended.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	_, _ = runOne(ctx, l.rdb, l.script, call{keys: []string{l.key}, args: []any{l.token}})
}
