package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
)

// rdb is a client of the gateway's Redis, a single server.
func (g *gateway) rdb() *redis.Client {
	g.t.Helper()
	opts, err := redis.ParseURL(g.url)
	if err != nil {
		g.t.Fatal(err)
	}
	cl := redis.NewClient(opts)
	g.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// client is a client of the gateway's Redis, whatever that is.
func (g *gateway) client() redis.UniversalClient {
	g.t.Helper()
	cl, err := registry.DialRedis(g.url)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// flushall empties Redis.
func (g *gateway) flushall(rdb *redis.Client) {
	g.t.Helper()
	if err := rdb.FlushAll(g.t.Context()).Err(); err != nil {
		g.t.Fatal(err)
	}
}

// whole waits until every bucket of the view is complete and has the whole
// registry as it is now.
func (g *gateway) whole(rdb redis.UniversalClient) {
	g.t.Helper()
	ctx := g.t.Context()
	cl, err := g.broker().NewClient()
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	id, err := broker.TopicID(ctx, cl, g.broker().Topics().Registry)
	if err != nil {
		g.t.Fatal(err)
	}
	end, err := broker.LastStableOffset(ctx, cl, g.broker().Topics().Registry, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	view := registry.NewView(rdb, id)
	eventually(g.t, time.Minute, "the view is complete", func() bool {
		markers, err := view.Markers(ctx)
		if err != nil {
			return false
		}
		for _, m := range markers {
			if !m.Reached(end) {
				return false
			}
		}
		return true
	})
}

// keysOf returns the keys of a pattern.
func keysOf(ctx context.Context, t *testing.T, rdb *redis.Client, pattern string) []string {
	t.Helper()
	var keys []string
	scan := rdb.Scan(ctx, 0, pattern, 1000).Iterator()
	for scan.Next(ctx) {
		keys = append(keys, scan.Val())
	}
	if err := scan.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

// contents returns what the view says, whatever its generation is: bucket and
// name → entity → offset and state.
func (g *gateway) contents(rdb *redis.Client) map[string]map[string]string {
	g.t.Helper()
	ctx := g.t.Context()
	out := map[string]map[string]string{}
	for bucket := range registry.Buckets {
		tag := fmt.Sprintf("{v%02d}:", bucket)
		generation, err := rdb.HGet(ctx, tag+"m", "gen").Result()
		if err != nil {
			g.t.Fatal(err)
		}
		for _, key := range keysOf(ctx, g.t, rdb, tag+generation+":*") {
			name := strings.TrimPrefix(key, tag+generation+":")
			if strings.HasPrefix(name, "@") {
				continue // an index, not a hash
			}
			fields, err := rdb.HGetAll(ctx, key).Result()
			if err != nil {
				g.t.Fatal(err)
			}
			out[tag+name] = fields
		}
	}
	return out
}

// bucketOf returns the tag of the bucket in which the view keeps a tenant.
func (g *gateway) bucketOf(rdb *redis.Client, tenant string) string {
	g.t.Helper()
	keys := keysOf(g.t.Context(), g.t, rdb, "{v*}:*:"+tenant)
	if len(keys) == 0 {
		g.t.Fatalf("tenant %s is not in the view", tenant)
	}
	tag, _, _ := strings.Cut(keys[0], ":")
	return tag
}
