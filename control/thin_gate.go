package control

import (
	"context"
	"sync"
	"time"
)

// fetchGate lets a bounded number of fetches read from Kafka at once, and of one
// tenant a quarter of them: the others' receivers do not wait for one that fetches
// as fast as it can.
type fetchGate struct {
	places chan struct{}

	mu      sync.Mutex
	tenants map[string]*fetchShare // those with fetches under way
}

// fetchShare is what one tenant has of the gate; users are those who have a place or
// wait for one.
type fetchShare struct {
	places chan struct{}
	users  int
}

func newFetchGate() *fetchGate {
	return &fetchGate{places: make(chan struct{}, maxFetches), tenants: map[string]*fetchShare{}}
}

// enter waits for a place, for fetchWait at most; the caller leaves it afterwards.
func (g *fetchGate) enter(ctx context.Context, tenant string) (leave func(), err error) {
	share := g.join(tenant)
	if share == nil {
		return nil, fetchBusy()
	}
	wait := time.NewTimer(fetchWait)
	defer wait.Stop()
	taken := make([]chan struct{}, 0, 2)
	leave = func() {
		for _, places := range taken {
			<-places
		}
		g.part(tenant, share)
	}
	for _, places := range [...]chan struct{}{share.places, g.places} {
		select {
		case places <- struct{}{}:
			taken = append(taken, places)
		case <-wait.C:
			leave()
			return nil, fetchBusy()
		case <-ctx.Done():
			leave()
			return nil, unavailable(ctx.Err())
		}
	}
	return leave, nil
}

// join returns the tenant's share, nil if enough of it wait already.
func (g *fetchGate) join(tenant string) *fetchShare {
	g.mu.Lock()
	defer g.mu.Unlock()
	share := g.tenants[tenant]
	if share == nil {
		share = &fetchShare{places: make(chan struct{}, maxTenantFetches)}
		g.tenants[tenant] = share
	}
	if share.users == maxTenantFetchers {
		return nil
	}
	share.users++
	return share
}

func (g *fetchGate) part(tenant string, share *fetchShare) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if share.users--; share.users == 0 {
		delete(g.tenants, tenant)
	}
}
