package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// The values below are what every cluster out there is laid out by.
func TestPartitionIsFixedForEver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		id   string
		n    int32
		want int32
	}{
		{"", 64, 38},
		{"ep_01h455vb4pex5vsknk084sn02q", 64, 28},
		{"ep_01h455vb4pex5vsknk084sn02r", 64, 39},
		{"ep_01h455vb4pex5vsknk084sn02q", 8, 4},
		{"ep_01h455vb4pex5vsknk084sn02q", 7, 2},
		{"ep_01h455vb4pex5vsknk084sn02q", 1, 0},
		{"ep_é", 64, 26},
	} {
		if got := (Layout{Deliveries: tt.n, ScheduleShards: 1, Version: 1}).Partition(tt.id); got != tt.want {
			t.Errorf("Partition(%q) of %d = %d, want %d", tt.id, tt.n, got, tt.want)
		}
	}
}

func TestPartitionSpreads(t *testing.T) {
	t.Parallel()
	l := Layout{Deliveries: 64, ScheduleShards: 1, Version: 1}
	counts := make([]int, l.Deliveries)
	for i := range 64_000 {
		counts[l.Partition(fmt.Sprintf("ep_01h455vb4pex5vsknk%08d", i))]++
	}
	for p, n := range counts {
		if n < 850 || n > 1150 { // 1000 expected, standard deviation 31
			t.Errorf("partition %d has %d of 64000 endpoints", p, n)
		}
	}
}

func TestPartitionStaysInRange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := Layout{Deliveries: rapid.Int32Range(1, 100_000).Draw(t, "n"), ScheduleShards: 1, Version: 1}
		if p := l.Partition(rapid.String().Draw(t, "id")); p < 0 || p >= l.Deliveries {
			t.Fatalf("partition %d of %d", p, l.Deliveries)
		}
	})
}

func TestSchedulePartitionsAreDistinct(t *testing.T) {
	t.Parallel()
	l := Layout{Deliveries: 1, ScheduleShards: 3, Version: 1}
	seen := map[int32]bool{}
	for shard := range l.ScheduleShards {
		for level := range WheelLevels {
			p := l.SchedulePartition(level, shard)
			if seen[p] || p < 0 || p >= WheelLevels*l.ScheduleShards {
				t.Errorf("level %d of shard %d is partition %d", level, shard, p)
			}
			seen[p] = true
		}
	}
}

func TestLayoutValid(t *testing.T) {
	t.Parallel()
	good := Layout{Deliveries: 64, ScheduleShards: 1, Version: 1}
	for name, l := range map[string]Layout{
		"version":    {Deliveries: 64, ScheduleShards: 1, Version: 2},
		"no parts":   {ScheduleShards: 1, Version: 1},
		"no shards":  {Deliveries: 64, Version: 1},
		"zero value": {},
	} {
		if err := l.Valid(); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v, want ErrLayout", name, err)
		}
	}
	if err := good.Valid(); err != nil {
		t.Error(err)
	}
	b, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"deliveries":64,"schedule_shards":1,"version":1}`, string(b)); diff != "" {
		t.Errorf("record of the layout (-want +got):\n%s", diff)
	}
}
