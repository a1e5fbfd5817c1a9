package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// minRedis is the oldest major version of Redis that is supported.
const minRedis = 7

// ErrUnsafeRedis says that Redis may throw away what must not go.
var ErrUnsafeRedis = errors.New("unsafe redis")

// CheckRedis checks that Redis is 7.0 or newer and evicts nothing but keys with
// a time to live (noeviction or volatile-*): the view's keys have none, the
// claims have. On a cluster every master is asked. An old version is always an
// error; an unsafe policy wraps [ErrUnsafeRedis], or with allowUnsafe comes back
// as a warning. The embedded Redis is not to be checked.
func CheckRedis(ctx context.Context, rdb redis.UniversalClient, allowUnsafe bool) (warnings []string, err error) {
	var mu sync.Mutex
	check := func(ctx context.Context, node *redis.Client) error {
		text, err := node.Info(ctx).Result()
		if err != nil {
			return fmt.Errorf("ask redis about itself: %w", err)
		}
		unsafe, err := judgeRedis(text)
		if unsafe == "" || err != nil {
			return err
		}
		if !allowUnsafe {
			return fmt.Errorf("%w: %s", ErrUnsafeRedis, unsafe)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Contains(warnings, unsafe) {
			warnings = append(warnings, unsafe)
		}
		return nil
	}
	switch c := rdb.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(ctx, check)
	case *redis.Client:
		err = check(ctx, c)
	default:
		err = fmt.Errorf("redis client of type %T is not supported", rdb)
	}
	return warnings, err
}

// judgeRedis reads the answer to INFO.
func judgeRedis(text string) (unsafe string, err error) {
	info := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":"); ok {
			info[name] = value
		}
	}
	version := info["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < minRedis {
		return "", fmt.Errorf("redis version %q: %d.0 or newer is needed", version, minRedis)
	}
	switch policy := info["maxmemory_policy"]; {
	case policy == "noeviction", strings.HasPrefix(policy, "volatile-"):
		return "", nil
	default:
		return fmt.Sprintf("redis maxmemory-policy is %q, want noeviction or volatile-ttl: others may evict the registry's view", policy), nil
	}
}
