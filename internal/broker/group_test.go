package broker

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	at := func(commit, start, end int64) position { return position{commit, start, end} }
	for _, tt := range []struct {
		name  string
		parts map[int32]position
		start Start
		from  map[int32]int64
		lost  []int32
	}{
		{"all there", map[int32]position{0: at(5, 0, 9), 1: at(0, 0, 0)}, "", nil, nil},
		{"new group, empty topic", map[int32]position{0: at(-1, 0, 0)}, "", map[int32]int64{0: 0}, nil},
		{"new group, records wait", map[int32]position{0: at(-1, 0, 9), 1: at(-1, 0, 0)}, "", map[int32]int64{0: 0, 1: 0}, nil},
		{"beginning is gone", map[int32]position{0: at(-1, 4, 9), 1: at(-1, 0, 0)}, "", map[int32]int64{1: 0}, []int32{0}},
		{"partition added", map[int32]position{0: at(5, 3, 9), 1: at(-1, 0, 7)}, "", map[int32]int64{1: 0}, nil},
		{"hole", map[int32]position{0: at(-1, 0, 9), 1: at(2, 0, 7)}, "", nil, []int32{0}},
		{"hole, earliest", map[int32]position{0: at(-1, 3, 9), 1: at(2, 0, 7)}, StartEarliest, map[int32]int64{0: 3}, nil},
		{"hole, latest", map[int32]position{0: at(-1, 3, 9), 1: at(2, 0, 7)}, StartLatest, map[int32]int64{0: 9}, nil},
		{"added, latest", map[int32]position{0: at(1, 0, 9), 1: at(-1, 0, 7)}, StartLatest, map[int32]int64{1: 0}, nil},
		{"no commit, latest", map[int32]position{0: at(-1, 0, 9)}, StartLatest, map[int32]int64{0: 9}, nil},
		{"no commit, earliest", map[int32]position{0: at(-1, 2, 9)}, StartEarliest, map[int32]int64{0: 2}, nil},
	} {
		from, lost := decide(tt.parts, tt.start)
		if tt.from == nil {
			tt.from = map[int32]int64{}
		}
		if diff := cmp.Diff(tt.from, from); diff != "" {
			t.Errorf("%s: offsets (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.lost, lost); diff != "" {
			t.Errorf("%s: lost (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestEnsureGroup(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		adm := kadm.NewClient(cl)
		names := c.Topics()
		produce(t, c, names.Events, 1, "early")

		// Several processes start at the same time.
		var g errgroup.Group
		for range 4 {
			mine := client(t, c)
			g.Go(func() error { return EnsureGroup(t.Context(), mine, c, "fanout", names.Events, names.Pages) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		want := map[int32]int64{0: 0, 1: 0, 2: 0}
		if diff := cmp.Diff(want, commits(t, adm, c, "fanout", names.Events)); diff != "" {
			t.Errorf("first commits (-want +got):\n%s", diff)
		}

		// A lost commit between others asks the operator.
		gone, err := adm.DeleteOffsets(t.Context(), c.Group("fanout"), kadm.TopicsSet{names.Events: {1: {}}})
		if err = errors.Join(err, gone.Error()); err != nil {
			t.Fatal(err)
		}
		if err := EnsureGroup(t.Context(), cl, c, "fanout", names.Events); !errors.Is(err, ErrLostCommit) {
			t.Errorf("a hole: error %v, want ErrLostCommit", err)
		}
		asked := c
		asked.Start = StartLatest
		if err := EnsureGroup(t.Context(), cl, asked, "fanout", names.Events); err != nil {
			t.Fatal(err)
		}
		want[1] = 1
		if diff := cmp.Diff(want, commits(t, adm, c, "fanout", names.Events)); diff != "" {
			t.Errorf("commits after --start=latest (-want +got):\n%s", diff)
		}
	})
}

// A new cluster has no coordinators for a while, and says so to whoever asks.
func TestEnsureGroupWaitsForACoordinator(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		key    kmsg.Key
		answer func(kmsg.Request) kmsg.Response
	}{
		"read commits": {kmsg.OffsetFetch, func(req kmsg.Request) kmsg.Response {
			resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
			resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
			for _, asked := range req.(*kmsg.OffsetFetchRequest).Groups {
				g := kmsg.NewOffsetFetchResponseGroup()
				g.Group, g.ErrorCode = asked.Group, kerr.CoordinatorNotAvailable.Code
				resp.Groups = append(resp.Groups, g)
			}
			return resp
		}},
		"commit": {kmsg.OffsetCommit, func(req kmsg.Request) kmsg.Response {
			resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
			for _, asked := range req.(*kmsg.OffsetCommitRequest).Topics {
				topic := kmsg.NewOffsetCommitResponseTopic()
				topic.Topic, topic.TopicID = asked.Topic, asked.TopicID
				for _, p := range asked.Partitions {
					part := kmsg.NewOffsetCommitResponseTopicPartition()
					part.Partition, part.ErrorCode = p.Partition, kerr.CoordinatorNotAvailable.Code
					topic.Partitions = append(topic.Partitions, part)
				}
				resp.Topics = append(resp.Topics, topic)
			}
			return resp
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const topic = "new"
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			var asked atomic.Int32
			cluster.ControlKey(tt.key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				if asked.Add(1) > 2 {
					return nil, nil, false
				}
				return tt.answer(req), nil, true
			})
			c := Config{Brokers: cluster.ListenAddrs(), Embedded: true}
			// A client that does not try again by itself.
			cl := client(t, c, kgo.RequestRetries(0))
			if err := EnsureGroup(t.Context(), cl, c, "fanout", topic); err != nil {
				t.Fatal(err)
			}
			if n := asked.Load(); n < 3 {
				t.Errorf("asked %d times, want at least 3", n)
			}
			if diff := cmp.Diff(map[int32]int64{0: 0}, commits(t, kadm.NewClient(cl), c, "fanout", topic)); diff != "" {
				t.Errorf("commits (-want +got):\n%s", diff)
			}
		})
	}
}

// A group whose log has lost its beginning can't start at 0.
func TestEnsureGroupRefusesAnOldLog(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		adm := kadm.NewClient(cl)
		events := c.Topics().Events
		produceAndCut(t, c, cl, events)
		if err := EnsureGroup(t.Context(), cl, c, "late", events); !errors.Is(err, ErrLostCommit) {
			t.Fatalf("error %v, want ErrLostCommit", err)
		}
		c.Start = StartEarliest
		if err := EnsureGroup(t.Context(), cl, c, "late", events); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[int32]int64{0: 2, 1: 0, 2: 0}, commits(t, adm, c, "late", events)); diff != "" {
			t.Errorf("commits (-want +got):\n%s", diff)
		}
		if start, err := StartOffset(t.Context(), cl, events, 0); err != nil || start != 2 {
			t.Errorf("log starts at %d, error %v", start, err)
		}
	})
}

// Partitions that are added to a running group are read from their first
// record, and a process that starts meanwhile isn't stopped by them.
func TestAddedPartitionStartsAtZero(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		events := c.Topics().Events
		if err := EnsureGroup(t.Context(), cl, c, "fanout", events); err != nil {
			t.Fatal(err)
		}
		opts, err := c.GroupOptions("fanout", "one", events)
		if err != nil {
			t.Fatal(err)
		}
		member, err := kgo.NewClient(append(opts, kgo.MetadataMaxAge(time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		defer member.Close()
		produce(t, c, events, 0, "before")
		if got := read(t, member, 1); string(got[0].Value) != "before" {
			t.Fatalf("read %q", got[0].Value)
		}
		if _, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), 4, events); err != nil {
			t.Fatal(err)
		}
		await(t, func() bool {
			_, err := LastStableOffset(t.Context(), client(t, c), events, 3)
			return err == nil
		})
		produce(t, c, events, 3, "first", "second")
		got := read(t, member, 2)
		if got[0].Partition != 3 || got[0].Offset != 0 || string(got[0].Value) != "first" {
			t.Errorf("first record of the new partition: %d/%d %q", got[0].Partition, got[0].Offset, got[0].Value)
		}
		if err := EnsureGroup(t.Context(), client(t, c), c, "fanout", events); err != nil {
			t.Errorf("a second process: %v", err)
		}
	})
}

// Neither a missing commit nor an offset out of range makes a reader jump.
func TestReadersNeverJump(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c Config) {
		cl, _ := ensured(t, c)
		events := c.Topics().Events
		produceAndCut(t, c, cl, events)
		for name, offset := range map[string]int64{"below the log start": 0, "above the log end": 10} {
			reader, err := c.NewReader(map[string]map[int32]int64{events: {0: offset}})
			if err != nil {
				t.Fatal(err)
			}
			if fs := pollOnce(t, reader); len(fs.Errors()) == 0 || fs.NumRecords() > 0 {
				t.Errorf("%s: errors %v, %d records", name, fs.Errors(), fs.NumRecords())
			}
			reader.Close()
		}
		opts, err := c.GroupOptions("never-ensured", "", events)
		if err != nil {
			t.Fatal(err)
		}
		member, err := kgo.NewClient(opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer member.Close()
		if fs := pollOnce(t, member); len(fs.Errors()) == 0 || fs.NumRecords() > 0 {
			t.Errorf("no commit: errors %v, %d records", fs.Errors(), fs.NumRecords())
		}
	})
}

// produceAndCut writes three records to partition 0, and cuts the first two off.
func produceAndCut(t *testing.T, c Config, cl *kgo.Client, topic string) {
	t.Helper()
	produce(t, c, topic, 0, "a", "b", "c")
	var cut kadm.Offsets
	cut.AddOffset(topic, 0, 2, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
}

func pollOnce(t *testing.T, cl *kgo.Client) kgo.Fetches {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fs := cl.PollFetches(ctx)
	if ctx.Err() != nil {
		t.Error("nothing came in a minute")
	}
	return fs
}

func commits(t *testing.T, adm *kadm.Client, c Config, group, topic string) map[int32]int64 {
	t.Helper()
	all, err := adm.FetchOffsets(t.Context(), c.Group(group))
	if err != nil {
		t.Fatal(err)
	}
	got := map[int32]int64{}
	for p, o := range all[topic] {
		got[p] = o.At
	}
	return got
}

// await asks until the condition holds or two minutes are over.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatal("still not so after two minutes")
		case <-tick.C:
		}
	}
}
