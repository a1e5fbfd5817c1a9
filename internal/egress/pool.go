package egress

import (
	"sync"
	"sync/atomic"
	"time"
)

// connKey says which connections may stand in for each other.
type connKey struct {
	https bool
	host  string // host and port as the URL has them
	id    *identity
}

// pool keeps idle connections, the ones of each host and all, in the order of
// their last use. A host without idle connections is not in it.
type pool struct {
	max, maxPerHost int
	timeout         time.Duration
	others          *atomic.Int64 // connections that count, too, and are kept elsewhere

	mu     sync.Mutex
	hosts  map[connKey]queue
	all    queue
	reaper *time.Timer // set while there are connections
}

func newPool(cfg *Config, others *atomic.Int64) *pool {
	return &pool{others: others, max: cfg.MaxIdleConns, maxPerHost: cfg.MaxIdlePerHost, timeout: cfg.IdleTimeout, hosts: map[connKey]queue{}}
}

// take removes and returns the connection to a host that was used last; nil if
// there is none. Whether the peer has closed it is not known.
func (p *pool) take(key connKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	cn := p.hosts[key].newest
	if cn != nil {
		p.unlinkLocked(cn)
	}
	return cn
}

// put adds a connection and closes those that are too many.
func (p *pool) put(cn *conn) {
	cn.idleSince = time.Now()
	p.mu.Lock()
	surplus := p.linkLocked(cn)
	if p.reaper == nil {
		p.reaper = time.AfterFunc(p.timeout, p.reap)
	}
	p.mu.Unlock()
	for _, cn := range surplus {
		cn.close()
	}
}

// linkLocked adds a connection and returns those that must go for it.
func (p *pool) linkLocked(cn *conn) (surplus []*conn) {
	host := p.hosts[cn.key]
	host.push(cn, ofHost)
	p.hosts[cn.key] = host
	p.all.push(cn, ofAll)
	if host.n > p.maxPerHost {
		surplus = append(surplus, host.oldest)
		p.unlinkLocked(host.oldest)
	}
	for p.all.n > 0 && p.all.n+int(p.others.Load()) > p.max {
		surplus = append(surplus, p.all.oldest)
		p.unlinkLocked(p.all.oldest)
	}
	return surplus
}

func (p *pool) unlinkLocked(cn *conn) {
	host := p.hosts[cn.key]
	host.remove(cn, ofHost)
	if host.n == 0 {
		delete(p.hosts, cn.key)
	} else {
		p.hosts[cn.key] = host
	}
	p.all.remove(cn, ofAll)
}

// reap closes what was idle for too long and comes back for the next.
func (p *pool) reap() {
	var old []*conn
	p.mu.Lock()
	now := time.Now()
	for p.all.n > 0 && now.Sub(p.all.oldest.idleSince) >= p.timeout {
		old = append(old, p.all.oldest)
		p.unlinkLocked(p.all.oldest)
	}
	if p.all.n == 0 {
		p.reaper = nil
	} else if p.reaper != nil {
		p.reaper.Reset(p.timeout - now.Sub(p.all.oldest.idleSince))
	}
	p.mu.Unlock()
	for _, cn := range old {
		cn.close()
	}
}

// closeAll closes the connections of one identity, or all of them.
func (p *pool) closeAll(id *identity) {
	var closing []*conn
	p.mu.Lock()
	for cn := p.all.oldest; cn != nil; {
		next := cn.links[ofAll].newer
		if id == nil || cn.key.id == id {
			closing = append(closing, cn)
			p.unlinkLocked(cn)
		}
		cn = next
	}
	if p.all.n == 0 && p.reaper != nil {
		p.reaper.Stop()
		p.reaper = nil
	}
	p.mu.Unlock()
	for _, cn := range closing {
		cn.close()
	}
}
