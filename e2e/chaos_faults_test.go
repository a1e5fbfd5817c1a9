package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// fault is something bad that happens to one part for a while.
type fault struct {
	name, on string
	at, ends time.Duration // since the load began
	// begin does it, end undoes it; both return at once or within seconds.
	begin, end func(context.Context) error

	began, ended time.Time
	note         string
}

// on reports whether the fault hit an instance at a time.
func (f *fault) hit(instance string, at time.Time) bool {
	return f.on == instance && !at.Before(f.began) && at.Before(f.ended)
}

// instances are the processes of the chaos test; the first of each role is the
// one that the load and the operator talk to.
func instances() []string {
	return []string{"control-1", "ingest-1", "fanout-1", "fanout-2", "deliver-1", "deliver-2"}
}

// linked are the processes that have proxies of their own.
func linked() []string { return []string{"ingest-1", "fanout-1", "fanout-2", "deliver-1", "deliver-2"} }

const receiverLinks = 3

// faultKind is a kind of fault: how often it is drawn, how long it lasts, to
// what it is done and what it does.
type faultKind struct {
	name        string
	weight      int
	least, most time.Duration
	on          []string
	begin, end  func(ctx context.Context, f *fault) error
}

// faultKinds is the table of faults.
func (c *chaos) faultKinds() []faultKind {
	workers := []string{"deliver-1", "deliver-2"}
	hurt := func(part string, how trouble) (begin, end func(context.Context, *fault) error) {
		name := func(f *fault) string { return strings.TrimSuffix(f.on+"/"+part, "/") }
		return func(_ context.Context, f *fault) error { return c.net.hurt(name(f), how) },
			func(ctx context.Context, f *fault) error { return c.net.mend(ctx, name(f)) }
	}
	restart := func(_ context.Context, f *fault) error {
		role, _, _ := strings.Cut(f.on, "-")
		c.g.start(role, f.on)
		return nil
	}
	kill := func(_ context.Context, f *fault) error { c.g.kill(f.on); return nil }
	const s = time.Second
	out := []faultKind{
		{"kill -9", 6, s / 10, 4 * s, instances(), kill, restart},
		{"kill -9", 6, s / 10, 4 * s, workers, kill, restart},
		{"SIGTERM", 4, 2 * s, 6 * s, instances(), c.terminate, c.revive},
		{"freeze", 2, s, 8 * s, instances(), c.freeze, c.thaw},
		{"freeze", 3, s, 20 * s, workers, c.freeze, c.thaw},
		{"kill broker (leader)", 3, s, 5 * s, []string{"kafka"}, c.killLeader, c.startBroker},
		{"freeze broker (leader)", 2, s, 6 * s, []string{"kafka"}, c.freezeLeader, c.thawBroker},
		{"kill redis", 2, s, 15 * s, []string{"redis"}, c.killRedis, c.startRedis},
		{"redis away", 1, 20 * s, 60 * s, []string{"redis"}, c.killRedis, c.startRedis},
		{"FLUSHALL", 3, s / 10, s, []string{"redis"}, c.flush, nil},
	}
	for _, one := range []struct {
		name        string
		weight      int
		least, most time.Duration
		on          []string
		part        string
		how         trouble
	}{
		{"cut from kafka", 3, s, 12 * s, linked(), "kafka", stalled},
		{"cut from kafka", 4, s, 20 * s, workers, "kafka", stalled},
		{"kafka refuses", 2, s, 8 * s, linked(), "kafka", refusing},
		{"kafka resets", 2, s, 4 * s, linked(), "kafka", resetting},
		{"kafka is slow", 2, 2 * s, 10 * s, linked(), "kafka", laggy},
		{"cut from redis", 2, s, 8 * s, linked(), "redis", stalled},
		{"redis resets", 1, s, 4 * s, linked(), "redis", resetting},
		{"cut from receivers", 2, s, 8 * s, receiverNames(), "", stalled},
		{"receivers refuse", 2, s, 6 * s, receiverNames(), "", refusing},
		{"receivers reset", 2, s, 4 * s, receiverNames(), "", resetting},
		{"receivers are slow", 1, 2 * s, 10 * s, receiverNames(), "", laggy},
	} {
		begin, end := hurt(one.part, one.how)
		out = append(out, faultKind{one.name, one.weight, one.least, one.most, one.on, begin, end})
	}
	return out
}

func receiverNames() []string {
	out := make([]string, receiverLinks)
	for i := range out {
		out[i] = fmt.Sprintf("receivers-%d", i)
	}
	return out
}

// plan draws the faults of a run. The same seed and duration give the same plan.
// A part has one fault at a time, and some time to get over it: a broker most.
func (c *chaos) plan(seed uint64, duration time.Duration) []*fault {
	rng := rand.New(rand.NewPCG(seed, 0))
	free := map[string]time.Duration{} // part → when it may have the next fault
	var out []*fault
	for at := 3 * time.Second; at < duration-5*time.Second; at += time.Second + time.Duration(rng.Int64N(int64(4*time.Second))) {
		f := c.draw(rng, at, duration, free)
		if f == nil {
			continue
		}
		rest := 3 * time.Second
		if f.on == "kafka" {
			rest = 12 * time.Second
		}
		free[f.on] = f.ends + rest
		out = append(out, f)
	}
	return out
}

// draw draws a fault of a part that is free at a time, nil if it finds none.
func (c *chaos) draw(rng *rand.Rand, at, duration time.Duration, free map[string]time.Duration) *fault {
	all, total := c.faultKinds(), 0
	for _, k := range all {
		total += k.weight
	}
	for range 10 {
		n, k := rng.IntN(total), 0
		for ; n >= all[k].weight; k++ {
			n -= all[k].weight
		}
		kind := all[k]
		f := &fault{name: kind.name, on: kind.on[rng.IntN(len(kind.on))], at: at}
		f.ends = min(at+kind.least+time.Duration(rng.Int64N(int64(kind.most-kind.least))), duration)
		if free[f.on] > at {
			continue
		}
		f.begin = func(ctx context.Context) error { return kind.begin(ctx, f) }
		f.end = func(ctx context.Context) error {
			if kind.end == nil {
				return nil
			}
			return kind.end(ctx, f)
		}
		return f
	}
	return nil
}

// unleash lets the faults happen, each at its time.
func (c *chaos) unleash(plan []*fault) {
	type step struct {
		at  time.Duration
		run func()
	}
	var steps []step
	for _, f := range plan {
		steps = append(steps,
			step{f.at, func() {
				f.began = time.Now()
				c.supervise()
				c.result(f, "begin", f.begin(c.t.Context()))
			}},
			step{f.ends, func() {
				c.result(f, "end", f.end(c.t.Context()))
				f.ended = time.Now()
			}})
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	for _, s := range steps {
		c.superviseUntil(c.began.Add(s.at))
		s.run()
	}
	c.superviseUntil(c.began.Add(c.run.duration))
	c.background.Wait()
}

// superviseUntil starts processes again that ended by themselves, as an
// orchestrator does, until a time.
func (c *chaos) superviseUntil(end time.Time) {
	for {
		c.supervise()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		wait(c.t.Context(), min(left, time.Second))
	}
}

func (c *chaos) supervise() {
	for _, instance := range instances() {
		p := c.g.proc(instance)
		select {
		case <-p.done:
		default:
			continue
		}
		if c.down(instance) {
			continue
		}
		log, _ := os.ReadFile(p.log.Name())
		c.crashes = append(c.crashes, fmt.Sprintf("%s at %s: %s", instance, c.since(time.Now()), lastLine(log)))
		c.g.start(p.role, instance)
	}
}

// down reports whether a fault that ends an instance is under way.
func (c *chaos) down(instance string) bool {
	for _, f := range c.faults {
		if f.on == instance && (f.name == "kill -9" || f.name == "SIGTERM") && !f.began.IsZero() && f.ended.IsZero() {
			return true
		}
	}
	return false
}

// lastLine is what a process said last: its error, which may have several lines,
// or its last line.
func lastLine(log []byte) string {
	text := strings.TrimSpace(string(log))
	if at := strings.LastIndex(text, "\npostrider: "); at >= 0 {
		text = text[at:]
	} else {
		text = text[strings.LastIndex(text, "\n")+1:]
	}
	text = strings.Join(strings.Fields(text), " ")
	return text[:min(len(text), 300)]
}

// result ends the test where a fault could not be done: what follows would say
// nothing.
func (c *chaos) result(f *fault, what string, err error) {
	c.t.Logf("%6.1f s: %s of %s on %s %s", time.Since(c.began).Seconds(), what, f.name, f.on, f.note)
	if err != nil {
		c.t.Fatalf("%s of %s on %s: %v", what, f.name, f.on, err)
	}
}

func (c *chaos) terminate(_ context.Context, f *fault) error {
	return c.g.proc(f.on).cmd.Process.Signal(syscall.SIGTERM)
}

// revive waits for the end of a process that was told to, as long as its drain
// may take, and starts it again.
func (c *chaos) revive(_ context.Context, f *fault) error {
	p := c.g.proc(f.on)
	select {
	case <-p.done:
		f.note = fmt.Sprintf("(exit %d)", p.cmd.ProcessState.ExitCode())
	case <-time.After(25 * time.Second):
		f.note = "(did not end within the drain time: killed)"
		c.slowEnds++
		c.g.kill(f.on)
	}
	c.g.start(p.role, f.on)
	return nil
}

func (c *chaos) freeze(_ context.Context, f *fault) error {
	return c.g.proc(f.on).cmd.Process.Signal(syscall.SIGSTOP)
}

func (c *chaos) thaw(_ context.Context, f *fault) error {
	return c.g.proc(f.on).cmd.Process.Signal(syscall.SIGCONT)
}

// leader finds the broker that leads a partition of deliveries now.
func (c *chaos) leader(ctx context.Context, f *fault) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	topic := c.g.broker().Topics().Deliveries
	details, err := kadm.NewClient(c.log.cl).ListTopics(ctx, topic)
	if err != nil {
		return 0, err
	}
	partition := int32(f.at.Milliseconds() % 8)
	broker := int(details[topic].Partitions[partition].Leader) - 1
	if broker < 0 {
		broker = int(partition) % 3
	}
	f.note = fmt.Sprintf("(broker %d, leader of deliveries/%d)", broker+1, partition)
	return broker, nil
}

func (c *chaos) killLeader(ctx context.Context, f *fault) (err error) {
	c.background.Wait() // one broker at a time
	if c.broker, err = c.leader(ctx, f); err == nil {
		c.kafka.Kill(c.broker)
	}
	return err
}

// startBroker starts the broker in the background: that takes a while.
func (c *chaos) startBroker(ctx context.Context, _ *fault) error {
	broker := c.broker
	c.background.Go(func() {
		if err := c.kafka.Start(ctx, broker); err != nil {
			c.t.Errorf("start broker %d: %v", broker+1, err)
		}
	})
	return nil
}

func (c *chaos) freezeLeader(ctx context.Context, f *fault) (err error) {
	c.background.Wait()
	if c.broker, err = c.leader(ctx, f); err == nil {
		err = c.kafka.Pause(c.broker)
	}
	return err
}

func (c *chaos) thawBroker(context.Context, *fault) error { return c.kafka.Resume(c.broker) }

func (c *chaos) killRedis(context.Context, *fault) error {
	c.g.redis.Kill()
	c.claimsLost = true
	return nil
}

func (c *chaos) startRedis(ctx context.Context, _ *fault) error { return c.g.redis.Start(ctx) }

func (c *chaos) flush(ctx context.Context, _ *fault) error {
	c.claimsLost = true
	return c.rdb.FlushAll(ctx).Err()
}
