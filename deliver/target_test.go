package deliver

import (
	"testing"

	"github.com/postrider/postrider/internal/registry"
)

// The shards' parts of a limit add up to it, whether or not it divides evenly; none
// is without, also where an endpoint is stored with less than one for each.
func TestPartsAddUp(t *testing.T) {
	for _, test := range []struct{ shards, limit, each, total int }{
		{1, 7, 7, 7}, {4, 8, 2, 8}, {16, 33, 2, 33}, {16, 16, 1, 16}, {3, 100, 33, 100}, {16, 3, 1, 16},
	} {
		e := &registry.Endpoint{
			ID: "ep_1", Tenant: "acme", URL: "https://a.example/", Shards: test.shards,
			MaxInFlight: min(test.limit, test.shards*MaxInFlight), RateLimit: registry.RateLimit{PerSecond: 50, Burst: test.limit},
		}
		flying, burst, rate := 0, 0, 0.0
		for shard := range test.shards {
			x, err := newTarget(e, 7, shard, openSealer{}, DefaultMaxAge)
			if err != nil {
				t.Fatal(err)
			}
			if x.burst != test.each && x.burst != test.each+1 {
				t.Errorf("%d by %d: shard %d has a burst of %d", test.limit, test.shards, shard, x.burst)
			}
			flying, burst, rate = flying+x.maxInFlight, burst+x.burst, rate+x.rate
		}
		if want := max(e.MaxInFlight, test.shards); flying != want {
			t.Errorf("%d attempts at once by %d: %d in all, want %d", test.limit, test.shards, flying, want)
		}
		if burst != test.total || rate < 49.999 || rate > 50.001 {
			t.Errorf("a burst of %d by %d: %d in all, want %d; %g/s", test.limit, test.shards, burst, test.total, rate)
		}
	}
}
