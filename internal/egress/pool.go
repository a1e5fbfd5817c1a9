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

// pool keeps idle connections, the ones of a host as a stack and all by age. A
// host without idle connections is not in it.
type pool struct {
	max, maxPerHost int
	timeout         time.Duration
	others          *atomic.Int64 // connections that count, too, and are kept elsewhere

	mu    sync.Mutex
	hosts map[connKey]stack
	all   int
	// By age: the one that was used longest ago is the oldest of its host, too,
	// since the last one in is the first one out.
	oldest, newest *conn
	reaper         *time.Timer // set while there are connections
}

// stack is the idle connections of one host.
type stack struct {
	top, bottom *conn
	n           int
}

func newPool(cfg *Config, others *atomic.Int64) *pool {
	return &pool{others: others, max: cfg.MaxIdleConns, maxPerHost: cfg.MaxIdlePerHost, timeout: cfg.IdleTimeout, hosts: map[connKey]stack{}}
}

// take removes and returns the connection to a host that was used last; nil if
// there is none. Whether the peer has closed it is not known.
func (p *pool) take(key connKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, found := p.hosts[key]
	if !found {
		return nil
	}
	cn := s.top
	p.unlinkLocked(cn)
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
	s := p.hosts[cn.key]
	cn.below, cn.above = s.top, nil
	if s.top != nil {
		s.top.above = cn
	} else {
		s.bottom = cn
	}
	s.top = cn
	s.n++
	p.hosts[cn.key] = s

	cn.older, cn.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = cn
	} else {
		p.oldest = cn
	}
	p.newest = cn
	p.all++

	if s.n > p.maxPerHost {
		surplus = append(surplus, s.bottom)
		p.unlinkLocked(s.bottom)
	}
	for p.oldest != nil && p.all+int(p.others.Load()) > p.max {
		surplus = append(surplus, p.oldest)
		p.unlinkLocked(p.oldest)
	}
	return surplus
}

func (p *pool) unlinkLocked(cn *conn) {
	s := p.hosts[cn.key]
	if cn.above != nil {
		cn.above.below = cn.below
	} else {
		s.top = cn.below
	}
	if cn.below != nil {
		cn.below.above = cn.above
	} else {
		s.bottom = cn.above
	}
	if s.n--; s.n == 0 {
		delete(p.hosts, cn.key)
	} else {
		p.hosts[cn.key] = s
	}

	if cn.newer != nil {
		cn.newer.older = cn.older
	} else {
		p.newest = cn.older
	}
	if cn.older != nil {
		cn.older.newer = cn.newer
	} else {
		p.oldest = cn.newer
	}
	p.all--
	cn.above, cn.below, cn.newer, cn.older = nil, nil, nil, nil
}

// reap closes what was idle for too long and comes back for the next.
func (p *pool) reap() {
	var old []*conn
	p.mu.Lock()
	now := time.Now()
	for p.oldest != nil && now.Sub(p.oldest.idleSince) >= p.timeout {
		old = append(old, p.oldest)
		p.unlinkLocked(p.oldest)
	}
	if p.oldest == nil {
		p.reaper = nil
	} else if p.reaper != nil {
		p.reaper.Reset(p.timeout - now.Sub(p.oldest.idleSince))
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
	for cn := p.oldest; cn != nil; {
		next := cn.newer
		if id == nil || cn.key.id == id {
			closing = append(closing, cn)
			p.unlinkLocked(cn)
		}
		cn = next
	}
	if p.oldest == nil && p.reaper != nil {
		p.reaper.Stop()
		p.reaper = nil
	}
	p.mu.Unlock()
	for _, cn := range closing {
		cn.close()
	}
}
