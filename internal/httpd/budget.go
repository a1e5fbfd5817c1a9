package httpd

import "sync"

// smallBody is the size up to which a body may use all of the budget, in bytes:
// a few large bodies that arrive slowly don't keep out the usual ones.
const smallBody = 64 << 10

// budget bounds the memory of all bodies together. It refuses instead of
// blocking, so that clients learn at once.
type budget struct {
	max int

	mu   sync.Mutex
	used int
}

// take reports whether there was room for n bytes, and if so takes it. A quarter
// of the budget is for requests that are not large.
func (b *budget) take(n int, large bool) bool {
	most := b.max
	if large {
		most -= b.max / 4
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > most-b.used {
		return false
	}
	b.used += n
	return true
}

func (b *budget) give(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
}
