package registry

import (
	"errors"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
)

// clusterReload is how often a client of a Redis cluster asks who serves what. A
// master that is gone redirects nobody, so this bounds how long a client goes on
// asking it when its replica has taken over.
const clusterReload = time.Second

// DialRedis returns a client for the Redis of a URL: one server; a cluster where
// the URL names further nodes (addr=host:port, any number of times); or, where it
// names a master (master_name=…), the one that the Sentinels at its addresses say
// is it. Then user and password of the URL are those for the Sentinels, and
// parameters of these names those for the master. Nothing is connected yet. Errors
// don't hold the password.
func DialRedis(raw string) (redis.UniversalClient, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("can't be parsed") // the error of url.Parse has the password
	}
	// ContextTimeoutEnabled: by default a context's deadline is ignored.
	switch query := u.Query(); {
	case query.Has("master_name"):
		opt, err := redis.ParseFailoverURL(raw)
		if err != nil {
			return nil, err
		}
		if opt.RouteByLatency || opt.RouteRandomly || opt.ReplicaOnly {
			return nil, errors.New("with master_name, only the master is of use: no route_by_latency, route_randomly, replica_only")
		}
		opt.ContextTimeoutEnabled = true
		return redis.NewFailoverClient(opt), nil
	case query.Has("addr"):
		opt, err := redis.ParseClusterURL(raw)
		if err != nil {
			return nil, err
		}
		opt.ContextTimeoutEnabled, opt.ClusterStateReloadInterval = true, clusterReload
		return redis.NewClusterClient(opt), nil
	default:
		opt, err := redis.ParseURL(raw)
		if err != nil {
			return nil, err
		}
		opt.ContextTimeoutEnabled = true
		return redis.NewClient(opt), nil
	}
}
