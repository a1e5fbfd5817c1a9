package registry

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// A claim of fan-out is by far the most frequent command, and there is a key for
// each event of the last hour. miniredis keeps such a key in four maps of strings
// and looks at all keys ten times a second to let them expire. So claims are kept
// here, without a pointer in them, and handed to miniredis as ordinary keys as
// soon as any command but a claim names them.
const (
	claimPrefix = "c:"
	claimKey    = len(claimPrefix) + 16
	claimValue  = 36
)

// claims answers SET key value PX|EX time NX GET for keys and values of a claim's
// size. It is safe for concurrent use.
type claims struct {
	redis *miniredis.Miniredis
	now   func() time.Time

	mu   sync.Mutex
	held map[[16]byte]held
	// order has every key of held, in the order in which they were set. Few
	// expire in another order, since their times to live are alike.
	order fifo
}

// held is the value of a claim and when it expires, in Unix milliseconds.
type held struct {
	value   [claimValue]byte
	expires int64
}

func newClaims(m *miniredis.Miniredis) *claims {
	return &claims{redis: m, now: time.Now, held: map[[16]byte]held{}}
}

// hook sees every command before miniredis does. It reports whether the command
// was answered.
func (c *claims) hook(peer *server.Peer, cmd string, args ...string) bool {
	switch cmd {
	case "SET":
		if ttl, ok := claimTTL(args); ok {
			return c.claim(peer, args[0], args[1], ttl)
		}
	case "FLUSHALL", "FLUSHDB":
		c.flush()
		return false
	}
	for _, arg := range args {
		if len(arg) == claimKey && strings.HasPrefix(arg, claimPrefix) {
			c.handOver(arg)
		}
	}
	return false
}

// claimTTL reads the arguments of a SET. It reports false if they are not those of
// a claim.
func claimTTL(args []string) (ttl time.Duration, ok bool) {
	if len(args) < 2 || len(args[0]) != claimKey || len(args[1]) != claimValue || !strings.HasPrefix(args[0], claimPrefix) {
		return 0, false
	}
	var nx, get bool
	for i := 2; i < len(args); i++ {
		switch strings.ToUpper(args[i]) {
		case "NX":
			nx = true
		case "GET":
			get = true
		case "EX", "PX":
			unit := time.Millisecond
			if args[i][0]|' ' == 'e' {
				unit = time.Second
			}
			i++
			if i == len(args) {
				return 0, false
			}
			n, err := strconv.ParseInt(args[i], 10, 32)
			if err != nil || n <= 0 {
				return 0, false
			}
			ttl = time.Duration(n) * unit
		default:
			return 0, false
		}
	}
	return ttl, nx && get && ttl > 0
}

// claim answers one claim, or reports false where miniredis has the key.
func (c *claims) claim(peer *server.Peer, key, value string, ttl time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := [16]byte([]byte(key[len(claimPrefix):]))
	now := c.now().UnixMilli()
	c.expire(now)
	if h, ok := c.held[id]; ok && h.expires > now {
		peer.WriteBulk(string(h.value[:]))
		return true
	}
	if c.redis.Exists(key) {
		return false
	}
	h := held{expires: now + ttl.Milliseconds()}
	copy(h.value[:], value)
	c.held[id] = h
	c.order.push(id)
	peer.WriteNull()
	return true
}

// expire forgets a few of the oldest claims that are over.
func (c *claims) expire(now int64) {
	const some = 4
	for range some {
		id, ok := c.order.first()
		if !ok || c.held[id].expires > now { // one that is gone expires at 0
			return
		}
		c.order.pop()
		delete(c.held, id)
	}
}

// handOver makes a claim an ordinary key.
func (c *claims) handOver(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := [16]byte([]byte(key[len(claimPrefix):]))
	h, ok := c.held[id]
	if !ok {
		return
	}
	delete(c.held, id)
	left := time.Duration(h.expires-c.now().UnixMilli()) * time.Millisecond
	if left <= 0 {
		return
	}
	if err := c.redis.Set(key, string(h.value[:])); err == nil { // no error: the key is free
		c.redis.SetTTL(key, left)
	}
}

func (c *claims) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held, c.order = map[[16]byte]held{}, fifo{}
}

// fifo is a queue in blocks, so that what was taken out is free memory soon.
type fifo struct {
	blocks [][][16]byte
	next   int // of the first block
}

const fifoBlock = 4096

func (f *fifo) push(id [16]byte) {
	if n := len(f.blocks); n == 0 || len(f.blocks[n-1]) == fifoBlock {
		f.blocks = append(f.blocks, make([][16]byte, 0, fifoBlock))
	}
	last := &f.blocks[len(f.blocks)-1]
	*last = append(*last, id)
}

func (f *fifo) first() (id [16]byte, ok bool) {
	if len(f.blocks) == 0 || f.next == len(f.blocks[0]) {
		return id, false
	}
	return f.blocks[0][f.next], true
}

func (f *fifo) pop() {
	if f.next++; f.next == fifoBlock {
		f.blocks[0] = nil
		f.blocks, f.next = f.blocks[1:], 0
	}
}
