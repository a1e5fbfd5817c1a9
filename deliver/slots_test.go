package deliver

import (
	"fmt"
	"maps"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// quick, fresh and slow return lanes of each class.
func quickLane(tenant string) *lane { return &lane{tenant: tenant, latency: 1} }
func freshLane(tenant string) *lane { return &lane{tenant: tenant} }
func slowLane(tenant string) *lane  { return &lane{tenant: tenant, latency: 1, slow: true} }

// fill starts as many attempts of the lanes as there is room for.
func fill(s *slots, of func(string) *lane, n int) (started int) {
	for i := range n {
		s.offer(of(fmt.Sprint("t", i%3)))
	}
	for l := s.take(); l != nil; l = s.take() {
		s.start(l.class(), l.tenant, 1)
		started++
	}
	return started
}

// Lanes that hang hold at most their share; lanes that answer quickly always
// have a quarter, also while ever more endpoints hang at their first attempt.
func TestSlotsShares(t *testing.T) {
	if got := fill(newSlots(100, 1600, 100), slowLane, 500); got != 25 {
		t.Errorf("%d slow attempts of 100 slots, want 25", got)
	}
	s := newSlots(100, 1600, 100)
	for round := range 20 {
		if got := fill(s, freshLane, 200); got != 50 && round < 10 {
			t.Errorf("round %d: %d fresh attempts, want 50", round, got)
		}
		quick := fill(newSlotsAs(s), quickLane, 500)
		if quick < 25 {
			t.Errorf("round %d: %d quick attempts beside %d others, want at least 25", round, quick, s.all())
		}
		for s.busy[classFresh] > 0 { // two seconds later
			s.turn(classFresh, anyOf(s.tenants[classFresh]), 1)
		}
	}
	if fill(newSlotsAs(s), slowLane, 100) != 0 {
		t.Error("a slow attempt starts beyond the share of slow lanes")
	}
	if s = newSlots(100, 200, 100); s.most != 200 {
		t.Errorf("most %d, want 200", s.most)
	}
	s.busy[classSlow] = 200
	if got := fill(s, quickLane, 10); got != 0 {
		t.Errorf("%d attempts start beyond the most", got)
	}
}

// newSlotsAs returns slots that are as busy as others, with empty rotations.
func newSlotsAs(s *slots) *slots {
	out := newSlots(s.total, s.most, 100)
	out.busy = s.busy
	for c := range out.tenants {
		out.tenants[c] = maps.Clone(s.tenants[c])
	}
	return out
}

// anyOf returns one of the tenants.
func anyOf(tenants map[string]int) string {
	for tenant := range tenants {
		return tenant
	}
	return ""
}

// A tenant holds at most its share of each class, whatever it has to send; what
// turned slow does not keep its quick endpoints from starting.
func TestSlotsTenantShare(t *testing.T) {
	s := newSlots(100, 1600, 30)
	greedy := func(of func(string) *lane) (started int) {
		for range 500 {
			s.offer(of("greedy"))
		}
		for l := s.take(); l != nil; l = s.take() {
			s.start(l.class(), l.tenant, 1)
			started++
		}
		return started
	}
	if quick, fresh, slow := greedy(quickLane), greedy(freshLane), greedy(slowLane); quick != 30 || fresh != 15 || slow != 7 {
		t.Errorf("one tenant has %d quick, %d fresh and %d slow attempts, want 30, 15 and 7 of 100", quick, fresh, slow)
	}
	s.offer(quickLane("other"))
	if l := s.take(); l == nil || l.tenant != "other" {
		t.Errorf("the other tenant got no turn: %+v", l)
	}
	s.turn(classQuick, "greedy", 1)
	if l := s.take(); l == nil || l.tenant != "greedy" {
		t.Error("an attempt that turned slow holds up the tenant's quick endpoints")
	}
}

// A large payload takes as many slots as have room for it, and gives all of them back.
func TestSlotsOfLargePayloads(t *testing.T) {
	e := &entry{}
	e.delivery.Event.Data = make([]byte, 1<<20)
	s := newSlots(100, 1600, 100)
	for range 100 {
		s.offer(quickLane("t"))
	}
	started := 0
	for l := s.take(); l != nil; l = s.take() {
		s.start(l.class(), l.tenant, e.weight())
		started++
	}
	if started != 6 || s.all() != 6*17 {
		t.Errorf("%d attempts of 1 MiB take %d of 100 slots, want 6 with 17 each", started, s.all())
	}
	for range started {
		s.turn(classQuick, "t", e.weight())
		s.end(classSlow, "t", e.weight())
	}
	if s.all() != 0 || len(s.tenants[classQuick])+len(s.tenants[classSlow]) != 0 {
		t.Errorf("%d slots are not free, tenants %v", s.all(), s.tenants)
	}
}

// Every lane gets its turn: tenants in turn, lanes of a tenant in turn, slow
// lanes too while others never rest.
func TestSlotsAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(4, 64).Draw(t, "slots")
		s := newSlots(total, 2*total, 100)
		lanes := map[*lane]int{}
		tenants := rapid.IntRange(1, 5).Draw(t, "tenants")
		perTenant := map[string]int{}
		fastOf := map[string]bool{}
		for tenant := range tenants {
			for i := range rapid.IntRange(1, 6).Draw(t, "lanes") {
				l := &lane{tenant: fmt.Sprint("t", tenant), endpoint: strconv.Itoa(i), latency: 1, slow: rapid.Bool().Draw(t, "slow")}
				fastOf[l.tenant] = fastOf[l.tenant] || !l.slow
				lanes[l] = 0
				s.offer(l)
			}
		}
		for range 6 * 30 * 8 {
			l := s.take()
			if l == nil {
				t.Fatal("no turn though there is room")
			}
			s.start(l.class(), l.tenant, 1)
			lanes[l]++
			if !l.slow {
				perTenant[l.tenant]++
			}
			s.end(l.class(), l.tenant, 1)
			s.withdraw(l)
			s.offer(l)
			s.withdraw(l)
			s.offer(l) // must not give it a second place
		}
		for l, n := range lanes {
			if n == 0 {
				t.Fatalf("lane %s/%s starved, slow %t", l.tenant, l.endpoint, l.slow)
			}
		}
		least, most := 1<<30, 0
		for tenant := range fastOf {
			if fastOf[tenant] {
				least, most = min(least, perTenant[tenant]), max(most, perTenant[tenant])
			}
		}
		if most > least+1 && len(perTenant) > 0 {
			t.Fatalf("tenants got %d to %d turns", least, most)
		}
		if s.all() != 0 {
			t.Fatalf("busy %v", s.busy)
		}
	})
}
