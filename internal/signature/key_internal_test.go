package signature

import (
	"sync"
	"testing"
	"time"
)

// A key that signs once keeps nothing for a second time; from then on it does, and
// signs the same.
func TestKeysThatSignOnceKeepNothing(t *testing.T) {
	t.Parallel()
	key, err := Parse(NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	sign := func() string { return Sign([]Key{key}, "evt_1", time.Unix(1_700_000_000, 0), []byte("body")) }
	first := sign()
	if key.m.macs.Load() != nil {
		t.Error("the first signature made pools")
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if again := sign(); again != first {
				t.Errorf("signed %s, then %s", first, again)
			}
		})
	}
	all.Wait()
	if key.m.macs.Load() == nil {
		t.Error("a key that signs again keeps nothing")
	}
}
