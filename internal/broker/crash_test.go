package broker

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The test below starts this test binary again with these variables set.
const (
	childEnv = "POSTRIDER_TEST_EMBEDDED_DIR"
	childRun = "POSTRIDER_TEST_EMBEDDED_RUN"
)

// TestEmbeddedSurvivesKill kills a process with an embedded broker under load,
// four times. What it said was acknowledged is there once, committed
// transactions are whole, aborted and open ones are not seen, and commits and
// the registry's values are not older than acknowledged.
func TestEmbeddedSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var said []string
	for run := range 4 {
		said = append(said, runAndKill(t, dir, run)...)
	}
	e, err := StartEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer closeTwice(t, e)
	c := Config{Brokers: e.Brokers(), Embedded: true, Partitions: Partitions{Events: 1, Deliveries: 1}}
	cl, _ := ensured(t, c)
	events := tally(t, c, cl, c.Topics().Events)
	deliveries := tally(t, c, cl, c.Topics().Deliveries)
	registry := tally(t, c, cl, c.Topics().Registry)

	want := map[string]int{}
	lastCommit, lastValue := int64(0), 0
	for _, line := range said {
		kind, value, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		want[kind]++
		switch kind {
		case "event":
			if events[value] != 1 {
				t.Errorf("acknowledged event %s is there %d times", value, events[value])
			}
		case "committed":
			if deliveries[value] != 2 {
				t.Errorf("committed transaction %s has %d of 2 records", value, deliveries[value])
			}
		case "aborted":
			if deliveries[value] != 0 {
				t.Errorf("aborted transaction %s shows", value)
			}
		case "offset":
			lastCommit = max(lastCommit, int64(n))
		case "value":
			lastValue = max(lastValue, n)
		}
	}
	for value, n := range deliveries {
		if n != 2 {
			t.Errorf("transaction %s shows %d of 2 records", value, n)
		}
	}
	if got := commits(t, kadm.NewClient(cl), c, "crash", c.Topics().Events)[0]; got < lastCommit {
		t.Errorf("group is at %d, acknowledged was %d", got, lastCommit)
	}
	newest := 0
	for value := range registry {
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		newest = max(newest, n)
	}
	if newest < lastValue {
		t.Errorf("newest value is %d, acknowledged was %d", newest, lastValue)
	}
	for _, kind := range []string{"event", "committed", "aborted", "offset", "value"} {
		if want[kind] == 0 {
			t.Errorf("no %s was acknowledged: the test proved nothing", kind)
		}
	}
}

// runAndKill returns what the child said before kill -9 took it.
func runAndKill(t *testing.T, dir string, run int) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, childRun+"="+strconv.Itoa(run))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if len(lines) == 400 {
			if err := cmd.Process.Kill(); err != nil { // what is in the pipe is still read
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(lines) < 400 {
		t.Fatalf("the child ended by itself after %d lines: %v", len(lines), err)
	}
	return lines
}

// tally counts the committed values of partition 0.
func tally(t *testing.T, c Config, cl *kgo.Client, topic string) map[string]int {
	t.Helper()
	end, err := LastStableOffset(t.Context(), cl, topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The reader's position passes end also where markers are last: a record
	// behind everything says so.
	mark := produce(t, c, topic, 0, "0")[0]
	if mark < end {
		t.Fatalf("%s: a new record got offset %d, the log ended at %d", topic, mark, end)
	}
	reader, err := c.NewReader(map[string]map[int32]int64{topic: {0: 0}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	counts := map[string]int{}
	for {
		for _, r := range read(t, reader, 1) {
			if r.Offset == mark {
				return counts
			}
			counts[string(r.Value)]++
		}
	}
}

// child is the process that gets killed: it writes in every way there is and
// says what was acknowledged.
func child(dir string) {
	run, err := strconv.Atoi(os.Getenv(childRun))
	if err != nil {
		log.Fatal(err)
	}
	e, err := StartEmbedded(EmbeddedConfig{Dir: dir, Trim: 20 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	c := Config{Brokers: e.Brokers(), Embedded: true, Partitions: Partitions{Events: 1, Deliveries: 1}}
	if err := load(context.Background(), c, run*1_000_000+1); err != nil {
		log.Fatal(err)
	}
}

// load writes until it is killed; every line on stdout is acknowledged.
func load(ctx context.Context, c Config, from int) error {
	cl, err := c.NewClient()
	if err != nil {
		return err
	}
	tx, err := c.NewClient(kgo.TransactionalID("crash"), kgo.TransactionTimeout(5*time.Second))
	if err != nil {
		return err
	}
	if _, err := Ensure(ctx, cl, c); err != nil {
		return err
	}
	names := c.Topics()
	for i := from; ; i++ {
		value := strconv.Itoa(i)
		if err := cl.ProduceSync(ctx, &kgo.Record{Topic: names.Events, Value: []byte(value)}).FirstErr(); err != nil {
			return err
		}
		fmt.Println("event", value) //nolint:forbidigo // stdout is the child's answer
		r := &kgo.Record{Topic: names.Registry, Key: []byte("k" + strconv.Itoa(i%5)), Value: []byte(value)}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			return err
		}
		fmt.Println("value", value) //nolint:forbidigo // stdout is the child's answer
		end, word := kgo.TryCommit, "committed"
		if i%3 == 0 {
			end, word = kgo.TryAbort, "aborted"
		}
		if err := transact(ctx, tx, names.Deliveries, value, end); err != nil {
			return err
		}
		fmt.Println(word, value) //nolint:forbidigo // stdout is the child's answer
		var at kadm.Offsets
		at.AddOffset(names.Events, 0, int64(i), -1)
		if err := kadm.NewClient(cl).CommitAllOffsets(ctx, c.Group("crash"), at); err != nil {
			return err
		}
		fmt.Println("offset", value) //nolint:forbidigo // stdout is the child's answer
	}
}

func transact(ctx context.Context, tx *kgo.Client, topic, value string, end kgo.TransactionEndTry) error {
	if err := tx.BeginTransaction(); err != nil {
		return err
	}
	for range 2 {
		if err := tx.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
			return err
		}
	}
	return tx.EndTransaction(ctx, end)
}
