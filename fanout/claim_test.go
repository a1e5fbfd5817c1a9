package fanout

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/postrider/postrider/schemas"
)

var (
	topicA = [16]byte{1}
	topicB = [16]byte{2}
)

// at returns a claim of an event with a payload at an offset.
func at(topic [16]byte, id byte, offset int64, payload string) *claim {
	c := newClaim(topic, [16]byte{id, 0xff, 0x00, '\n'}, schemas.Position{Partition: 7, Offset: offset}, "")
	c.setPayload([]byte(payload))
	return &c
}

type answer struct {
	State claimState
	First schemas.Position
}

func answers(claims []*claim) []answer {
	out := make([]answer, len(claims))
	for i, c := range claims {
		out[i] = answer{c.state, c.first}
	}
	return out
}

func TestClaims(t *testing.T) {
	r := &rig{tb: t}
	r.startRedis()
	if err := r.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	cl := claimer{r.rdb, time.Hour}
	first := schemas.Position{Partition: 7, Offset: 10}
	steps := []struct {
		name   string
		claims []*claim
		want   []answer
	}{
		{"nobody there", []*claim{at(topicA, 1, 10, "p")}, []answer{{State: claimWon}}},
		{"own position again", []*claim{at(topicA, 1, 10, "p")}, []answer{{State: claimWon}}},
		{"another position", []*claim{at(topicA, 1, 11, "p")}, []answer{{claimDuplicate, first}}},
		{"another payload", []*claim{at(topicA, 1, 12, "q")}, []answer{{claimConflict, first}}},
		{"twice in one batch", []*claim{at(topicA, 2, 10, "p"), at(topicA, 2, 11, "p")}, []answer{{State: claimWon}, {claimDuplicate, first}}},
		{"another topic id", []*claim{at(topicB, 1, 3, "p")}, []answer{{State: claimWon}}},
		{"which is replaced", []*claim{at(topicB, 1, 4, "p")}, []answer{{claimDuplicate, schemas.Position{Partition: 7, Offset: 3}}}},
		{"twice over a void one", []*claim{at(topicB, 2, 3, "p"), at(topicB, 2, 4, "p")}, []answer{{State: claimWon}, {claimDuplicate, schemas.Position{Partition: 7, Offset: 3}}}},
	}
	for _, step := range steps {
		if err := cl.claimAll(t.Context(), step.claims); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, answers(step.claims)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	ttl, err := r.rdb.PTTL(t.Context(), at(topicB, 1, 0, "").key).Result()
	if err != nil || ttl < 59*time.Minute || ttl > time.Hour {
		t.Errorf("replaced claim lives for %s, %v", ttl, err)
	}
	if r.mini != nil {
		r.mini.FastForward(time.Hour + time.Second)
		again := at(topicB, 1, 9, "p")
		if err := cl.claimAll(t.Context(), []*claim{again}); err != nil || again.state != claimWon {
			t.Errorf("after the window: state %d, %v", again.state, err)
		}
	}
}

func TestResubmissionIsAClaimOfItsOwn(t *testing.T) {
	r := &rig{tb: t}
	r.startRedis()
	cl := claimer{r.rdb, time.Hour}
	id := [16]byte{9}
	var claims []*claim
	for i, number := range []string{"", "1", "2", "1"} {
		c := newClaim(topicA, id, schemas.Position{Offset: int64(i)}, number)
		claims = append(claims, &c)
	}
	if err := cl.claimAll(t.Context(), claims); err != nil {
		t.Fatal(err)
	}
	want := []answer{{}, {}, {}, {claimDuplicate, schemas.Position{Offset: 1}}}
	if diff := cmp.Diff(want, answers(claims)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReleaseTakesOnlyOwnClaims(t *testing.T) {
	r := &rig{tb: t}
	r.startRedis()
	cl := claimer{r.rdb, time.Hour}
	mine, others := at(topicA, 21, 1, "p"), at(topicA, 22, 1, "p")
	if err := cl.claimAll(t.Context(), []*claim{mine, others}); err != nil {
		t.Fatal(err)
	}
	if err := cl.release(t.Context(), []*claim{mine, at(topicA, 22, 2, "p")}); err != nil {
		t.Fatal(err)
	}
	next := []*claim{at(topicA, 21, 3, "p"), at(topicA, 22, 3, "p")}
	if err := cl.claimAll(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	want := []answer{{State: claimWon}, {claimDuplicate, schemas.Position{Partition: 7, Offset: 1}}}
	if diff := cmp.Diff(want, answers(next)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.rdb.Del(t.Context(), mine.key, others.key)
}

func TestClaimsBeyondOnePipeline(t *testing.T) {
	r := &rig{tb: t}
	r.startRedis()
	var claims []*claim
	for i := range claimChunk + 10 {
		c := newClaim(topicA, [16]byte{3, byte(i), byte(i >> 8)}, schemas.Position{Offset: int64(i)}, strconv.FormatInt(time.Now().UnixNano(), 10))
		claims = append(claims, &c)
	}
	if err := (claimer{r.rdb, time.Second}).claimAll(t.Context(), append(claims, claims...)); err != nil {
		t.Fatal(err)
	}
	for i, c := range claims {
		if c.state != claimWon {
			t.Fatalf("claim %d: state %d", i, c.state)
		}
	}
}

func TestClaimErrorWithoutRedis(t *testing.T) {
	r := &rig{tb: t}
	r.startMini() // a shared one stays up
	r.mini.SetError("LOADING Redis is loading the dataset in memory")
	if err := (claimer{r.rdb, time.Hour}).claimAll(t.Context(), []*claim{at(topicA, 1, 1, "p")}); err == nil {
		t.Error("no error")
	}
}
