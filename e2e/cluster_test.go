package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/postrider/postrider/e2e/services"
	"github.com/postrider/postrider/internal/testkit"
)

// (P5) A Redis cluster loses the master that holds the tenant, and then the one
// that was its replica, under load and control writes: what had not reached the
// replica comes from the log again, and everything goes on by itself, also while
// the first master stays away.
func TestRedisCluster(t *testing.T) {
	cluster, err := services.StartRedisCluster(t.Context(), 3)
	need(t, err == nil, fmt.Sprintf("a real Redis cluster: %v", err))
	t.Cleanup(cluster.Stop)
	g := gatewayOf(t, theKafka(t), cluster.URL)
	t.Cleanup(func() { testkit.DropTopics(t, g.broker()) }) // when the processes are gone
	marker := ""
	failOver(g, cluster.Await, func() (*services.Redis, error) {
		if marker == "" {
			marker = clusterTag(t, g, "acme") + ":m"
		}
		return cluster.Failover(t.Context(), marker)
	})
}

// (P5) The same where Sentinels make a replica the master.
func TestRedisSentinel(t *testing.T) {
	sentinel, err := services.StartRedisSentinel(t.Context())
	need(t, err == nil, fmt.Sprintf("a real Redis with Sentinels: %v", err))
	t.Cleanup(sentinel.Stop)
	g := gatewayOf(t, theKafka(t), sentinel.URL)
	t.Cleanup(func() { testkit.DropTopics(t, g.broker()) }) // when the processes are gone
	failOver(g, sentinel.Await, func() (*services.Redis, error) { return sentinel.Failover(t.Context()) })
}

// failOver takes the master away from a gateway under load twice.
func failOver(g *gateway, whole func(context.Context) error, kill func() (*services.Redis, error)) {
	d := disturb(g)
	d.startWriter()
	for range 2 {
		var killed *services.Redis
		d.loseView(func() {
			var err error
			if killed, err = kill(); err != nil {
				g.t.Fatal(err)
			}
		})
		if err := killed.Start(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
		if err := whole(g.t.Context()); err != nil {
			g.t.Fatal(err)
		}
	}
	d.end()
}

// clusterTag returns the tag of the bucket in which a cluster keeps a tenant.
func clusterTag(t *testing.T, g *gateway, tenant string) string {
	t.Helper()
	cluster, ok := g.client().(*redis.ClusterClient)
	if !ok {
		t.Fatal("no cluster")
	}
	var mu sync.Mutex
	tag := ""
	err := cluster.ForEachMaster(t.Context(), func(ctx context.Context, node *redis.Client) error {
		for _, key := range keysOf(ctx, t, node, "{v*}:*:"+tenant) {
			mu.Lock()
			tag, _, _ = strings.Cut(key, ":")
			mu.Unlock()
		}
		return nil
	})
	if err != nil || tag == "" {
		t.Fatalf("tenant %s is not in the view: %v", tenant, err)
	}
	return tag
}
