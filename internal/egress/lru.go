package egress

import "container/list"

// lru is a map of bounded size that forgets what was used longest ago. It is not
// safe for concurrent use.
type lru[K comparable, V any] struct {
	max     int
	entries map[K]*list.Element
	order   list.List // of lruEntry, the last used in front
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](size int) *lru[K, V] {
	return &lru[K, V]{max: size, entries: make(map[K]*list.Element)}
}

// get returns the value of a key and counts that as use.
func (l *lru[K, V]) get(key K) (value V, found bool) {
	e, found := l.entries[key]
	if !found {
		return value, false
	}
	l.order.MoveToFront(e)
	return e.Value.(lruEntry[K, V]).value, true
}

// put sets the value of a key and returns the one that had to go for it.
func (l *lru[K, V]) put(key K, value V) (old V, evicted bool) {
	if e, found := l.entries[key]; found {
		e.Value = lruEntry[K, V]{key, value}
		l.order.MoveToFront(e)
		return old, false
	}
	l.entries[key] = l.order.PushFront(lruEntry[K, V]{key, value})
	if l.order.Len() <= l.max {
		return old, false
	}
	last := l.order.Remove(l.order.Back()).(lruEntry[K, V])
	delete(l.entries, last.key)
	return last.value, true
}

func (l *lru[K, V]) remove(key K) {
	if e, found := l.entries[key]; found {
		l.order.Remove(e)
		delete(l.entries, key)
	}
}

// each calls visit for all values, the last used first.
func (l *lru[K, V]) each(visit func(V)) {
	for e := l.order.Front(); e != nil; e = e.Next() {
		visit(e.Value.(lruEntry[K, V]).value)
	}
}
