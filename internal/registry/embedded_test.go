package registry

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// Dial reaches the server without its address; Close ends such connections, too.
func TestEmbeddedDial(t *testing.T) {
	e, err := StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: "192.0.2.1:9", Dialer: e.Dial})
	defer rdb.Close()
	if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	outside := redis.NewClient(&redis.Options{Addr: e.Addr()})
	defer outside.Close()
	if got, err := outside.Get(t.Context(), "k").Result(); err != nil || got != "v" {
		t.Errorf("over TCP %q, error %v", got, err)
	}
	e.Close()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Error("still there after Close")
	}
}
