package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{First: 10 * time.Millisecond, Limit: 50 * time.Millisecond}
		var waits []time.Duration
		var full []bool
		step := func() {
			start := time.Now()
			if !b.Wait(t.Context()) {
				t.Error("a wait ended too early")
			}
			waits, full = append(waits, time.Since(start)), append(full, b.Full())
		}
		for range 4 {
			step()
		}
		b.Reset()
		if b.Full() {
			t.Error("full after a reset")
		}
		step()
		ms := time.Millisecond
		if diff := cmp.Diff([]time.Duration{10 * ms, 20 * ms, 40 * ms, 50 * ms, 10 * ms}, waits); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]bool{false, false, false, true, false}, full); diff != "" {
			t.Errorf("full (-want +got):\n%s", diff)
		}
	})
}

func TestPauseEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if Pause(ctx, time.Hour) {
			t.Error("an hour was over in a second")
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("the pause took %s, want %s", took, time.Second)
		}
	})
}
