package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestFindGap(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		topic := c.Topics().Events
		produce(t, c, topic, 0, "a", "b", "c")
		var cut kadm.Offsets
		cut.AddOffset(topic, 0, 2, -1)
		if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
		for position, want := range map[int64]string{
			0: "lost_by_retention: " + topic + "/0: offsets 0 to 1 were deleted before the group was done with them",
			2: "", 3: "",
			4: "truncated: " + topic + "/0: offset 4 is to be read next, but the log ends at 3",
		} {
			gap, err := FindGap(t.Context(), cl, topic, 0, position)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if gap != nil {
				got = gap.Error()
			}
			if got != want {
				t.Errorf("position %d: %q, want %q", position, got, want)
			}
		}
		if _, err := FindGap(t.Context(), cl, topic, 99, 0); err == nil {
			t.Error("an unknown partition has a log")
		}
	})
}

// The first loss of each partition stays; many are counted.
func TestLosses(t *testing.T) {
	var l Losses
	if err := l.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for p := range int32(10) {
		if !l.Note("events", p, errors.New("first")) || l.Note("events", p, errors.New("second")) {
			t.Errorf("partition %d: not first once", p)
		}
	}
	err := l.Check(t.Context())
	if err == nil || strings.Count(err.Error(), "first") != lossesNamed || !strings.Contains(err.Error(), "and 2 partitions more") {
		t.Errorf("check: %v", err)
	}
}
