package registry

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/postrider/postrider/internal/backoff"
	"github.com/postrider/postrider/internal/pipe"
)

// Embedded is a Redis in this process, for embedded mode and tests. It keeps
// nothing on disk: a restart is a flush, which the view outlives by design.
type Embedded struct {
	redis *miniredis.Miniredis
	front *front
}

// embeddedTick is how exact times to live are.
const embeddedTick = 100 * time.Millisecond

// StartEmbedded starts a Redis on a free port of 127.0.0.1. Keys with a time to
// live expire only while Run runs.
func StartEmbedded() (*Embedded, error) {
	m := miniredis.NewMiniRedis()
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start embedded redis: %w", err)
	}
	m.Server().SetPreHook(newClaims(m).hook)
	return &Embedded{redis: m, front: &front{redis: m.Server(), conns: map[net.Conn]struct{}{}}}, nil
}

// Addr returns the address, host:port.
func (e *Embedded) Addr() string { return e.redis.Addr() }

// Dial connects to the server within the process, without the kernel; network and
// address are not looked at.
func (e *Embedded) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := pipe.New()
	e.front.serve(server)
	return client, nil
}

// Close ends the server and its connections.
func (e *Embedded) Close() {
	e.front.close()
	e.redis.Close()
}

// Run moves the server's clock until ctx ends, and then returns nil. A step
// visits every key, so with many keys the steps get wider: they take at most
// about a fiftieth of the time.
func (e *Embedded) Run(ctx context.Context) error {
	last, width := time.Now(), embeddedTick
	for ctx.Err() == nil {
		backoff.Pause(ctx, width)
		now := time.Now()
		e.redis.FastForward(now.Sub(last))
		last, width = now, max(embeddedTick, 50*time.Since(now))
	}
	return nil
}
