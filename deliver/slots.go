package deliver

// class says how a lane has answered, and so which part of the slots its attempts
// may take.
type class int

// The classes. An attempt that takes longer than slowAfter turns slow under way.
const (
	classQuick class = iota // answered quickly last
	classFresh              // never answered so far
	classSlow               // timed out last, or takes longer than slowAfter
	classes
)

// slots shares a worker's parallelism between lanes: fairly between tenants,
// then between the lanes of a tenant, both round robin, in a rotation for each
// class. Slow lanes hold at most a quarter of the slots, lanes that never
// answered at most half for the first slowAfter of their attempts, so that a
// quarter is always there for lanes that answer quickly, whoever hangs and
// however many. What turned slow under way may go beyond the total, up to most.
//
// Of the slots of each class no tenant holds more than its share, so that there
// are always some for the others, and so that its own slow endpoints don't hold
// up its quick ones.
//
// An attempt takes one slot and one more for each slotBytes of its payload: else a
// large event for thousands of endpoints that hang would take all of the memory.
//
// A lane stands in a rotation only while it could start something if there was
// a slot. The zero value is not usable; the caller holds the worker's lock.
type slots struct {
	total     int
	most      int // attempts that may be under way at once, whatever they turned
	percent   int // of a class, for one tenant
	busy      [classes]int
	tenants   [classes]map[string]int
	rotations [classes]rotation
	picks     int
}

// newSlots shares total slots, of which one tenant may hold a percentage; most is
// at least twice the total.
func newSlots(total, most, percent int) *slots {
	return &slots{
		total: total, most: max(most, 2*total), percent: percent,
		tenants:   [classes]map[string]int{{}, {}, {}},
		rotations: [classes]rotation{newRotation(), newRotation(), newRotation()},
	}
}

// slowShare is the part of the slots that slow lanes share, freshShare that of
// lanes that never answered: one over this.
const (
	slowShare  = 4
	freshShare = 2
)

// slotBytes is the payload that a slot has room for.
const slotBytes = 64 << 10

// all returns how many slots the attempts under way take.
func (s *slots) all() int { return s.busy[classQuick] + s.busy[classFresh] + s.busy[classSlow] }

// part returns how many slots a class may have at most.
func (s *slots) part(c class) int {
	switch c {
	case classFresh:
		return max(1, s.total/freshShare)
	case classSlow:
		return max(1, s.total/slowShare)
	case classQuick, classes:
	}
	return s.total
}

// room reports whether an attempt of the class may start.
func (s *slots) room(c class) bool {
	slowCap, freshCap, all := s.part(classSlow), s.part(classFresh), s.all()
	spared := s.busy[classQuick]+s.busy[classFresh] < s.total-slowCap && all < s.most
	switch c {
	case classQuick:
		return all < s.total || spared || s.busy[classQuick] < slowCap && all < s.most
	case classFresh:
		return s.busy[classFresh] < freshCap && (all < s.total || spared)
	default:
		return all < s.total && s.busy[classSlow] < slowCap
	}
}

// take returns the next lane that may start an attempt, or nil. The lane is
// moved to the back of its rotation; the caller starts one attempt of it and
// calls offer again if it could start more. Each class comes first at times, so
// that lanes that never rest starve no others.
func (s *slots) take() *lane {
	s.picks++
	order := [classes]class{classQuick, classFresh, classSlow}
	switch s.picks % 4 {
	case 0:
		order = [classes]class{classSlow, classQuick, classFresh}
	case 2:
		order = [classes]class{classFresh, classQuick, classSlow}
	}
	for _, c := range order {
		if !s.room(c) {
			continue
		}
		if l := s.rotations[c].take(func(tenant string) bool { return s.allowed(c, tenant) }); l != nil {
			return l
		}
	}
	return nil
}

// offer puts the lane into the rotation of its class, if it is not there.
func (s *slots) offer(l *lane) { s.rotations[l.class()].add(l) }

// withdraw takes the lane out of its rotation.
func (s *slots) withdraw(l *lane) {
	if l.rotation != nil {
		l.rotation = nil
	}
}

// allowed reports whether a tenant may have one more attempt of a class.
func (s *slots) allowed(c class, tenant string) bool {
	return s.tenants[c][tenant] < max(1, s.part(c)*s.percent/100)
}

// start counts an attempt of a weight under a class and for its tenant, end takes
// it off, and turn moves it to the slow ones.
func (s *slots) start(c class, tenant string, weight int) {
	s.busy[c] += weight
	s.tenants[c][tenant] += weight
}

func (s *slots) end(c class, tenant string, weight int) {
	s.busy[c] -= weight
	if s.tenants[c][tenant] -= weight; s.tenants[c][tenant] <= 0 {
		delete(s.tenants[c], tenant)
	}
}

func (s *slots) turn(c class, tenant string, weight int) {
	s.end(c, tenant, weight)
	s.start(classSlow, tenant, weight)
}

// rotation is a round robin of tenants, each a round robin of lanes. A lane that
// was withdrawn leaves its place behind, which is passed over: only the place
// with the lane's last ticket counts.
type rotation struct {
	tenants map[string]*turn
	order   ring[*turn]
	tickets uint64
}

// turn is one tenant's place in a rotation.
type turn struct {
	tenant string
	lanes  ring[place]
}

// place is a lane's place in its tenant's turn.
type place struct {
	lane   *lane
	ticket uint64
}

func newRotation() rotation { return rotation{tenants: map[string]*turn{}} }

func (r *rotation) add(l *lane) {
	if l.rotation == r {
		return
	}
	t := r.tenants[l.tenant]
	if t == nil {
		t = &turn{tenant: l.tenant}
		r.tenants[l.tenant] = t
		r.order.push(t)
	}
	r.tickets++
	l.rotation, l.ticket = r, r.tickets
	t.lanes.push(place{l, r.tickets})
}

// take returns the first lane of the allowed tenant whose turn it is.
func (r *rotation) take(allowed func(tenant string) bool) *lane {
	for passed := 0; passed < r.order.len(); {
		t, _ := r.order.pop()
		if !allowed(t.tenant) {
			r.order.push(t)
			passed++
			continue
		}
		l := r.next(t)
		if t.lanes.len() > 0 {
			r.order.push(t)
		} else {
			delete(r.tenants, t.tenant)
		}
		if l != nil {
			return l
		}
	}
	return nil
}

// next returns the tenant's next lane, nil where none is left.
func (r *rotation) next(t *turn) *lane {
	for {
		p, ok := t.lanes.pop()
		if !ok {
			return nil
		}
		if p.lane.rotation == r && p.lane.ticket == p.ticket {
			p.lane.rotation = nil
			return p.lane
		}
	}
}

// ring is a queue that gives back the memory of what was taken.
type ring[T any] struct {
	items []T
	head  int
}

func (q *ring[T]) len() int { return len(q.items) - q.head }

func (q *ring[T]) push(item T) { q.items = append(q.items, item) }

func (q *ring[T]) pop() (item T, ok bool) {
	if q.head == len(q.items) {
		return item, false
	}
	item, q.items[q.head] = q.items[q.head], item
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && 2*q.head > len(q.items):
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return item, true
}
