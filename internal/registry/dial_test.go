package registry

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// A URL says which kind of Redis it is, and every kind heeds deadlines.
func TestDialRedis(t *testing.T) {
	single, ok := dialed(t, "rediss://user:secret@a:1/3").(*redis.Client)
	if !ok || single.Options().Addr != "a:1" || single.Options().DB != 3 || !single.Options().ContextTimeoutEnabled || single.Options().TLSConfig == nil {
		t.Error("not the one server of the URL")
	}
	cluster, ok := dialed(t, "redis://user:secret@a:1?addr=b:2&addr=c:3").(*redis.ClusterClient)
	if !ok {
		t.Fatal("no cluster")
	}
	if opt := cluster.Options(); len(opt.Addrs) != 3 || opt.Password != "secret" || !opt.ContextTimeoutEnabled || opt.ClusterStateReloadInterval != clusterReload {
		t.Errorf("options of the cluster: %+v", opt)
	}
	named, ok := dialed(t, "redis://s:watch@a:1/2?addr=b:2&master_name=m&username=user&password=secret").(*redis.Client)
	if !ok {
		t.Fatal("no client of the named master")
	}
	if opt := named.Options(); opt.Addr != "FailoverClient" || opt.DB != 2 || opt.Username != "user" || opt.Password != "secret" || !opt.ContextTimeoutEnabled {
		t.Errorf("options of the named master: %+v", opt)
	}
}

func dialed(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	rdb, err := DialRedis(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// What is wrong with a URL is said without its password.
func TestDialRedisRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"redis://u:hunter2@a:1/%zz":                              "can't be parsed",
		"http://u:hunter2@a:1":                                   "scheme",
		"redis://u:hunter2@a:1/x":                                "database",
		"redis://u:hunter2@a:1/0?nonsense=1":                     "nonsense",
		"redis://u:hunter2@a:1?addr=b:2&nonsense=1":              "nonsense",
		"redis://u:hunter2@a:1?addr=b":                           "addr",
		"redis://u:hunter2@a:1?master_name=m&nonsense=1":         "nonsense",
		"redis://u:hunter2@a:1?master_name=m&replica_only=true":  "replica_only",
		"redis://u:hunter2@a:1?master_name=m&route_randomly=1":   "route_randomly",
		"redis://u:hunter2@a:1?master_name=m&route_by_latency=1": "route_by_latency",
	} {
		rdb, err := DialRedis(url)
		if err == nil {
			_ = rdb.Close()
			t.Errorf("%s is taken", url)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, want something about %s", url, err, want)
		}
	}
}
