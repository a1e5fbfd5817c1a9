package egress

// queue is connections in the order of their last use. It makes no garbage: a
// connection holds its own places.
type queue struct {
	oldest, newest *conn
	n              int
}

// order says which of the queues that a connection is in.
type order int

const (
	ofHost order = iota
	ofAll
	orders // how many there are
)

// link is the place of a connection in a queue.
type link struct{ older, newer *conn }

// push adds a connection as the newest.
func (q *queue) push(cn *conn, o order) {
	cn.links[o] = link{older: q.newest}
	if q.newest != nil {
		q.newest.links[o].newer = cn
	} else {
		q.oldest = cn
	}
	q.newest = cn
	q.n++
}

// remove takes out a connection, wherever it is.
func (q *queue) remove(cn *conn, o order) {
	at := cn.links[o]
	if at.newer != nil {
		at.newer.links[o].older = at.older
	} else {
		q.newest = at.older
	}
	if at.older != nil {
		at.older.links[o].newer = at.newer
	} else {
		q.oldest = at.newer
	}
	cn.links[o] = link{}
	q.n--
}
