package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// dialled returns an embedded Redis and a client that reaches it through memory.
func dialled(t *testing.T) (*Embedded, *redis.Client) {
	t.Helper()
	e, err := StartEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	rdb := redis.NewClient(&redis.Options{Addr: "192.0.2.1:9", Dialer: e.Dial})
	t.Cleanup(func() { _ = rdb.Close() })
	return e, rdb
}

// Dial reaches the server without its address; Close ends such connections, too.
func TestEmbeddedDial(t *testing.T) {
	e, rdb := dialled(t)
	long := strings.Repeat("x", 3*frontBuffer)
	for key, value := range map[string]string{"k": "v", "": "", "long": long, "last": "short", "px": "nx", "GET": "set"} {
		if err := rdb.Set(t.Context(), key, value, 0).Err(); err != nil {
			t.Fatal(err)
		}
		outside := redis.NewClient(&redis.Options{Addr: e.Addr()})
		if got, err := outside.Get(t.Context(), key).Result(); err != nil || got != value {
			t.Errorf("%q over TCP: %.20q, error %v", key, got, err)
		}
		_ = outside.Close()
	}
	e.Close()
	if err := rdb.Ping(t.Context()).Err(); err == nil {
		t.Error("still there after Close")
	}
}

func TestEmbeddedRefusesWhatIsNoCommand(t *testing.T) {
	e, _ := dialled(t)
	for _, sent := range []string{"PING\r\n", "*1\r\nPING\r\n", "*-1\r\n", "*9999999999\r\n", "*1\r\n$-5\r\n", "*1\n$4\nPING\n", "*0\r\n"} {
		c, err := e.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("%q: an answer of %d bytes", sent, n)
		}
		_ = c.Close()
	}
}

func aClaim(n int) (key, value string) {
	return fmt.Sprintf("c:%016d", n), fmt.Sprintf("%036d", n)
}

// claim makes a claim and returns what stood there, "" if nothing did.
func claim(t *testing.T, rdb *redis.Client, key, value string, ttl time.Duration) string {
	t.Helper()
	there, err := rdb.SetArgs(t.Context(), key, value, redis.SetArgs{Mode: "NX", Get: true, TTL: ttl}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	return there
}

// Claims are kept apart, and that must not show.
func TestEmbeddedClaimsAreKeysLikeOthers(t *testing.T) {
	_, rdb := dialled(t)
	key, value := aClaim(1)
	_, other := aClaim(2)
	if got := claim(t, rdb, key, value, time.Hour); got != "" {
		t.Errorf("first claim found %q", got)
	}
	if got := claim(t, rdb, key, other, time.Hour); got != value {
		t.Errorf("second claim found %q", got)
	}
	if got := rdb.Get(t.Context(), key).Val(); got != value {
		t.Errorf("GET %q", got)
	}
	if left := rdb.PTTL(t.Context(), key).Val(); left <= 59*time.Minute || left > time.Hour {
		t.Errorf("%v to live", left)
	}
	if got := claim(t, rdb, key, other, time.Hour); got != value {
		t.Errorf("claim of an ordinary key found %q", got)
	}
	const drop = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`
	if n, err := rdb.Eval(t.Context(), drop, []string{key}, value).Int(); n != 1 || err != nil {
		t.Errorf("released %d, error %v", n, err)
	}
	if got := claim(t, rdb, key, other, time.Hour); got != "" {
		t.Errorf("claim after the release found %q", got)
	}
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if got := claim(t, rdb, key, value, time.Hour); got != "" {
		t.Errorf("claim after FLUSHALL found %q", got)
	}
}

func TestEmbeddedTakesOtherSetsAsTheyAre(t *testing.T) {
	_, rdb := dialled(t)
	key, value := aClaim(3)
	for _, args := range [][]any{
		{"SET", key, value},
		{"SET", key, value, "PX", "100000"},
		{"SET", key, value, "PX", "100000", "GET"},
		{"SET", key, value, "KEEPTTL"},
		{"SET", key, value + "x", "PX", "100000", "NX", "GET"},
	} {
		if err := rdb.Do(t.Context(), args...).Err(); err != nil && !errors.Is(err, redis.Nil) {
			t.Errorf("%v: %v", args, err)
		}
		if got := rdb.Get(t.Context(), key).Val(); got != value {
			t.Errorf("%v: then %q", args, got)
		}
	}
	for _, args := range [][]any{
		{"SET", key, value, "PX", "0", "NX", "GET"},
		{"SET", key, value, "PX", "x", "NX", "GET"},
		{"SET", key, value, "NX", "GET", "PX"},
	} {
		if err := rdb.Do(t.Context(), args...).Err(); err == nil || errors.Is(err, redis.Nil) {
			t.Errorf("%v: no error", args)
		}
	}
}

// A pipeline that is larger than every buffer, half of it repeats.
func TestEmbeddedClaimsInOnePipeline(t *testing.T) {
	_, rdb := dialled(t)
	const n = 4000
	pipe := rdb.Pipeline()
	answers := make([]*redis.StatusCmd, n)
	for i := range answers {
		key, value := aClaim(i / 2)
		answers[i] = pipe.SetArgs(t.Context(), key, value, redis.SetArgs{Mode: "NX", Get: true, TTL: time.Hour})
	}
	if _, err := pipe.Exec(t.Context()); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	for i, answer := range answers {
		want := ""
		if i%2 == 1 {
			_, want = aClaim(i / 2)
		}
		if got := answer.Val(); got != want {
			t.Fatalf("claim %d found %q, want %q", i, got, want)
		}
	}
}

func TestEmbeddedClaimsExpire(t *testing.T) {
	e, rdb := dialled(t)
	now := time.Now()
	c := newClaims(e.redis)
	c.now = func() time.Time { return now }
	e.redis.Server().SetPreHook(c.hook)
	const n = 3 * fifoBlock
	for i := range n {
		key, value := aClaim(i)
		claim(t, rdb, key, value, time.Minute)
	}
	now = now.Add(time.Minute - time.Millisecond)
	key, value := aClaim(0)
	if got := claim(t, rdb, key, value, time.Minute); got != value {
		t.Errorf("before its time: %q", got)
	}
	now = now.Add(time.Millisecond)
	if got := claim(t, rdb, key, value, time.Minute); got != "" {
		t.Errorf("at its time: %q", got)
	}
	for i := range n {
		key, value := aClaim(n + i)
		claim(t, rdb, key, value, time.Minute)
	}
	if got := len(c.held); got != n+1 {
		t.Errorf("%d claims in memory, %d live", got, n+1)
	}
	if got := len(c.order.blocks); got > 5 {
		t.Errorf("%d blocks for %d claims", got, n+1)
	}
}
