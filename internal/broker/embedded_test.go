package broker

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

func TestEmbeddedFolderAndPort(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o755); err != nil { // open to all before
		t.Fatal(err)
	}
	first, err := StartEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	addr := first.Brokers()[0]
	if host, _, _ := net.SplitHostPort(addr); host != "127.0.0.1" {
		t.Errorf("bound to %s", addr)
	}
	if _, err := StartEmbedded(EmbeddedConfig{Dir: dir}); !errors.Is(err, errInUse) {
		t.Errorf("a second broker on the same folder: %v", err)
	}
	closeTwice(t, first)

	again, err := StartEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Brokers()[0]; got != addr {
		t.Errorf("after a restart at %s, before at %s", got, addr)
	}
	closeTwice(t, again)

	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a listener of the test
	other, err := StartEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if other.Brokers()[0] == addr {
		t.Error("at a port that is taken")
	}
	closeTwice(t, other)
	if _, err := StartEmbedded(EmbeddedConfig{}); err == nil {
		t.Error("no folder, no error")
	}
}

func closeTwice(t *testing.T, e *Embedded) {
	t.Helper()
	for range 2 {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Dial reaches the broker without its address, and a client outside reaches it by
// its address at the same time.
func TestEmbeddedDial(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	inside := Config{Embedded: true, Brokers: []string{"192.0.2.1:9"}, Dial: e.Dial}
	outside := Config{Embedded: true, Brokers: e.Brokers()}
	cl, _ := ensured(t, inside)
	defer cl.Close()
	for n, c := range []Config{inside, outside} {
		produce(t, c, c.Topics().Events, 0, "an event")
		if end, err := LastStableOffset(t.Context(), cl, c.Topics().Events, 0); err != nil || end != int64(n)+1 {
			t.Errorf("client %d: end %d, error %v", n, end, err)
		}
	}
	closeTwice(t, e)
	if _, err := e.Dial(t.Context(), "", ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
}

// Size limits work, also after a restart that creates no topic; compacted topics
// keep their records.
func TestEmbeddedTrims(t *testing.T) {
	t.Parallel()
	conf := EmbeddedConfig{Dir: t.TempDir(), Trim: 20 * time.Millisecond, Sync: true}
	c := Config{Embedded: true, EmbeddedBytes: 2 << 20 * 64 / 14, Partitions: Partitions{Events: 1}}
	for run := range 2 {
		e, err := StartEmbedded(conf)
		if err != nil {
			t.Fatal(err)
		}
		c.Brokers = e.Brokers()
		cl, rep := ensured(t, c)
		if run == 1 && len(rep.Created) > 0 {
			t.Errorf("created after a restart: %v", rep.Created)
		}
		before, err := LastStableOffset(t.Context(), cl, c.Topics().Events, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 { // 40 MB into 2 MiB
			produce(t, c, c.Topics().Events, 0, strings.Repeat("x", 1_000_000))
		}
		produce(t, c, c.Topics().Registry, 0, "kept")
		await(t, func() bool {
			start, err := StartOffset(t.Context(), cl, c.Topics().Events, 0)
			return err == nil && start >= before+20
		})
		if start, err := StartOffset(t.Context(), cl, c.Topics().Registry, 0); err != nil || start != 0 {
			t.Errorf("registry starts at %d, error %v", start, err)
		}
		cl.Close()
		closeTwice(t, e)
	}
}

// What a group has not read is not trimmed with the rest, until its topic alone is as
// large as all may be.
func TestEmbeddedSparesUnread(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(EmbeddedConfig{Dir: t.TempDir(), Trim: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTwice(t, e)
	c := Config{Embedded: true, Brokers: e.Brokers(), EmbeddedBytes: 20 << 20, Partitions: Partitions{Events: 1}} // events: 4.4 MiB
	cl, _ := ensured(t, c)
	events := c.Topics().Events
	trim := func() (start int64) {
		t.Helper()
		e.cluster.ApplyRetention()
		for range 5 {
			if err := e.trimRead(); err != nil {
				t.Fatal(err)
			}
		}
		if start, err = StartOffset(t.Context(), cl, events, 0); err != nil {
			t.Fatal(err)
		}
		return start
	}
	commit := func(at int64) {
		t.Helper()
		var commits kadm.Offsets
		commits.AddOffset(events, 0, at, -1)
		if err := kadm.NewClient(cl).CommitAllOffsets(t.Context(), c.Group("fanout"), commits); err != nil {
			t.Fatal(err)
		}
	}
	for range 15 {
		produce(t, c, events, 0, strings.Repeat("x", 1_000_000))
	}
	if start := trim(); start != 0 {
		t.Errorf("starts at %d before it is known who reads", start)
	}
	e.SpareUnread(c, map[string][]string{"fanout": {events}})
	if start := trim(); start != 0 {
		t.Errorf("starts at %d without a commit", start)
	}
	commit(3)
	if start := trim(); start != 3 {
		t.Errorf("starts at %d, want the commit, 3", start)
	}
	commit(15)
	if start := trim(); start < 10 || start > 12 {
		t.Errorf("starts at %d, want the last 4 MB of 15", start)
	}
	for range 30 {
		produce(t, c, events, 0, strings.Repeat("x", 1_000_000))
	}
	if start := trim(); start < 45-21 || start > 45-18 {
		t.Errorf("starts at %d, want the last 20 MiB of 45 MB", start)
	}
}

// The broker's own log of commits stays short: it is written anew while all wait.
// The last commit is there after that, and after the next start.
func TestEmbeddedStateLogStaysShort(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := StartEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(client(t, Config{Embedded: true, Brokers: e.Brokers()}))
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	var at kadm.Offsets
	last := int64(0)
	for written := 0; written < 2*embeddedStateLog; written += 1 << 10 {
		last++
		at.Add(kadm.Offset{Topic: "t", At: last, LeaderEpoch: -1, Metadata: strings.Repeat("m", 1<<10)})
		if err := adm.CommitAllOffsets(t.Context(), "g", at); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "log", "groups.log"))
	if err != nil || info.Size() > embeddedStateLog+embeddedStateLog/2 {
		t.Errorf("after 2 MiB of commits: %d bytes, error %v", info.Size(), err)
	}
	closeTwice(t, e)
	if e, err = StartEmbedded(EmbeddedConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer closeTwice(t, e)
	got, err := kadm.NewClient(client(t, Config{Embedded: true, Brokers: e.Brokers()})).FetchOffsets(t.Context(), "g")
	if o, ok := got.Lookup("t", 0); err != nil || !ok || o.At != last {
		t.Errorf("committed %d, found %d, error %v", last, o.At, err)
	}
}
