package fanout

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/postrider/postrider/schemas"
)

// A claim is the key "c:<16 bytes of the event id>[:<resubmission>]" with the log
// position that came first:
//
//	16 bytes  id of the topic events
//	 4 bytes  partition, big endian
//	 8 bytes  offset, big endian
//	 8 bytes  beginning of the SHA-256 of the payload
const (
	claimPrefix = "c:"
	claimSize   = 36
	claimChunk  = 2000 // claims of one pipeline, a bound for memory
)

// claimState is what a claim found.
type claimState uint8

const (
	claimWon       claimState = iota // ours: nobody was there, or we were
	claimDuplicate                   // the same event was at another position
	claimConflict                    // so was another payload under the same id
)

// claim is one event's claim: what is asked, and after the call the answer.
type claim struct {
	key   string
	value [claimSize]byte
	state claimState
	first schemas.Position // of a duplicate or conflict
}

// newClaim describes the event at a position. A resubmission by an operator is a
// claim of its own.
func newClaim(topicID, id [16]byte, pos schemas.Position, resubmit string) claim {
	var c claim
	key := make([]byte, 0, len(claimPrefix)+len(id)+1+len(resubmit))
	key = append(append(key, claimPrefix...), id[:]...)
	if resubmit != "" {
		key = append(append(key, ':'), resubmit...)
	}
	c.key = string(key)
	copy(c.value[:16], topicID[:])
	binary.BigEndian.PutUint32(c.value[16:], uint32(pos.Partition)) //nolint:gosec // partitions are not negative
	binary.BigEndian.PutUint64(c.value[20:], uint64(pos.Offset))    //nolint:gosec // nor are offsets
	return c
}

// setPayload enters the hash by which a conflict is told from a repeat.
func (c *claim) setPayload(data []byte) {
	sum := sha256.Sum256(data)
	copy(c.value[28:], sum[:8])
}

// judge compares what stood in Redis with the claim. It reports whether the value
// there is void, because it is of another topic or not a claim at all.
func (c *claim) judge(there []byte) (void bool) {
	c.state, c.first = claimWon, schemas.Position{}
	if len(there) != claimSize || !bytes.Equal(there[:16], c.value[:16]) {
		return true
	}
	if bytes.Equal(there[16:28], c.value[16:28]) {
		return false
	}
	c.state = claimDuplicate
	if !bytes.Equal(there[28:], c.value[28:]) {
		c.state = claimConflict
	}
	c.first = schemas.Position{
		Partition: int32(binary.BigEndian.Uint32(there[16:])), //nolint:gosec // as written above
		Offset:    int64(binary.BigEndian.Uint64(there[20:])), //nolint:gosec // as written above
	}
	return false
}

// claimer makes and releases claims.
type claimer struct {
	rdb    redis.UniversalClient
	window time.Duration
}

// claimAll makes the claims in their order, in one pipeline, and fills in their
// answers. After an error it may be called again: a claim that was made already is
// at its own position.
func (r claimer) claimAll(ctx context.Context, claims []*claim) error {
	for len(claims) > 0 {
		n := min(len(claims), claimChunk)
		void, err := r.claimSome(ctx, claims[:n])
		if err == nil {
			err = r.replace(ctx, void)
		}
		if err != nil {
			return err
		}
		claims = claims[n:]
	}
	return nil
}

func (r claimer) claimSome(ctx context.Context, claims []*claim) (void []voidClaim, err error) {
	pipe := r.rdb.Pipeline()
	answers := make([]*redis.StatusCmd, len(claims))
	for i, c := range claims {
		answers[i] = pipe.SetArgs(ctx, c.key, c.value[:], redis.SetArgs{Mode: "NX", Get: true, TTL: r.window})
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	for i, c := range claims {
		there, err := answers[i].Result()
		switch {
		case errors.Is(err, redis.Nil):
			c.state = claimWon
		case err != nil:
			return nil, fmt.Errorf("claim events: %w", err)
		case c.judge([]byte(there)):
			void = append(void, voidClaim{c, there})
		}
	}
	return void, nil
}

// voidClaim is a claim whose key holds the value of a topic that is gone.
type voidClaim struct {
	*claim
	there string
}

// replace puts claims in the place of void ones, unless somebody else was quicker.
func (r claimer) replace(ctx context.Context, void []voidClaim) error {
	if len(void) == 0 {
		return nil
	}
	const swap = `local v = redis.call('GET', KEYS[1])
if not v or v == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return ARGV[2] end
return v`
	pipe := r.rdb.Pipeline()
	answers := make([]*redis.Cmd, len(void))
	for i, v := range void {
		answers[i] = pipe.Eval(ctx, swap, []string{v.key}, v.there, v.value[:], r.window.Milliseconds())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("replace claims: %w", err)
	}
	for i, v := range void {
		there, err := answers[i].Text()
		if err != nil {
			return fmt.Errorf("replace claims: %w", err)
		}
		v.judge([]byte(there))
	}
	return nil
}

// release takes claims back that are still ours: a rejected event must not hide
// its corrected repeat.
func (r claimer) release(ctx context.Context, claims []*claim) error {
	if len(claims) == 0 {
		return nil
	}
	const drop = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0`
	pipe := r.rdb.Pipeline()
	for _, c := range claims {
		pipe.Eval(ctx, drop, []string{c.key}, c.value[:])
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("release claims: %w", err)
	}
	return nil
}
