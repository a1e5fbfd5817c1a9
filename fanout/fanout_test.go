package fanout

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
	"github.com/postrider/postrider/schemas"
)

func TestEventBecomesOneDeliveryPerEndpoint(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		one := r.view.subscribe("acme", 1, "", "order.*", "order.paid")
		two := r.view.subscribe("acme", 2, `data.id == "e1"`, "*")
		r.view.subscribe("other", 3, "", "*")
		r.start("a")
		ev := event("acme", "e1", "order.paid")
		ev.PartitionKey, ev.Extensions = "k", map[string]string{"region": "eu"}
		r.produce(r.record(ev, 3))

		got := r.deliveries(2)
		slices.SortFunc(got, func(a, b schemas.Delivery) int { return len(a.Endpoint) - len(b.Endpoint) })
		byEndpoint := map[string]schemas.Delivery{}
		for _, d := range got {
			byEndpoint[d.Endpoint] = d
		}
		if diff := cmp.Diff([]string{one, two}, slices.Sorted(maps.Keys(byEndpoint))); diff != "" {
			t.Fatalf("endpoints (-want +got):\n%s", diff)
		}
		d := byEndpoint[one]
		want := schemas.Delivery{
			Event: ev, ID: schemas.DeliveryID(ev.EventID(), one, ""), EventID: ev.EventID(), Endpoint: one,
			Position: schemas.Position{Partition: 3}, Registry: 1<<40 - 1, Attempt: 1, MadeAt: d.MadeAt,
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("delivery (-want +got):\n%s", diff)
		}
		if age := time.Since(d.MadeAt); age < -time.Minute || age > time.Hour {
			t.Errorf("made at %s", d.MadeAt)
		}
	})
}

func TestDecisions(t *testing.T) {
	r := newRig(t)
	r.view.subscribe("acme", 1, "", "order.paid")
	off := r.view.subscribe("acme", 2, "", "order.paid")
	r.view.put("acme", off, registry.Endpoint{ID: off, Tenant: "acme", State: registry.StateDisabled})
	ill := r.view.subscribe("acme", 3, "", "order.paid")
	r.view.put("acme", ill+registry.HealthSuffix, registry.Health{Endpoint: ill, Disabled: true, Judged: 100})
	paused := r.view.subscribe("acme", 4, "", "order.paid")
	r.view.put("acme", paused, registry.Endpoint{ID: paused, Tenant: "acme", State: registry.StatePaused})
	r.view.subscribe("acme", 5, `data.total > 5.0`, "order.paid")
	r.view.subscribe("acme", 6, `data.id == "nobody"`, "order.paid")
	r.view.put("gone", registry.TenantEntity, registry.Tenant{ID: "gone", Deleting: true})
	r.start("a")

	again := event("acme", "paid", "order.paid")
	conflict := again
	conflict.Data = []byte(`{"other":true}`)
	r.produce(r.record(again, 0), r.record(again, 0), r.record(conflict, 0))
	r.produce(r.record(event("acme", "x", "nobody.asked"), 1), r.record(event("gone", "g", "order.paid"), 1))

	got := map[string]map[schemas.Reason]schemas.ReasonCount{}
	firsts := map[string]*schemas.Position{}
	for _, d := range r.decisions(5) {
		got[d.Position.String()], firsts[d.Position.String()] = d.Reasons, d.First
	}
	id := func(prefix string, n int) string { return fmt.Sprintf("%s_%026d", prefix, n) }
	want := map[string]map[schemas.Reason]schemas.ReasonCount{
		"0.0": {
			schemas.ReasonMatched:     {Count: 2, IDs: []string{id("ep", 1), id("ep", 4)}},
			schemas.ReasonDisabled:    {Count: 2, IDs: []string{id("ep", 2), id("ep", 3)}},
			schemas.ReasonFiltered:    {Count: 1, IDs: []string{id("sub", 6)}},
			schemas.ReasonFilterError: {Count: 1, IDs: []string{id("sub", 5)}},
		},
		"0.1": {schemas.ReasonDuplicate: {Count: 1}},
		"0.2": {schemas.ReasonConflict: {Count: 1}},
		"1.0": {schemas.ReasonUnmatched: {Count: 1}},
		"1.1": {schemas.ReasonTenantDeleted: {Count: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decisions (-want +got):\n%s", diff)
	}
	for _, at := range []string{"0.1", "0.2"} {
		if diff := cmp.Diff(&schemas.Position{}, firsts[at]); diff != "" {
			t.Errorf("first position of %s (-want +got):\n%s", at, diff)
		}
	}
	r.deliveries(2)
}

func TestRejectedRecordsClaimNothing(t *testing.T) {
	r := newRig(t)
	r.view.subscribe("acme", 1, "", "*")
	r.start("a")
	bad := event("acme", "b", "order.paid")
	bad.Time = "yesterday"
	looped := event("acme", "h", "order.paid")
	looped.Hops = schemas.MaxHops + 1
	resubmitted := r.record(event("acme", "r", "order.paid"), 0)
	resubmitted.Headers = append(resubmitted.Headers, kgo.RecordHeader{Key: headerResubmit, Value: make([]byte, 100)})
	r.produce(
		&kgo.Record{Topic: r.topics.Events, Value: []byte("no event")},
		r.record(bad, 0), r.record(looped, 0), r.record(event("nobody", "u", "order.paid"), 0), resubmitted,
		&kgo.Record{Topic: r.topics.Pages, Value: []byte("no page")},
	)
	reasons := map[string]int{}
	for _, rec := range r.exactly(r.topics.Rejected, 6) {
		reasons[testkit.Header(rec, "pr_reason")]++
		if testkit.Header(rec, "pr_origin_topic") == r.topics.Events && testkit.Header(rec, "pr_origin_offset") == "0" && string(rec.Value) != "no event" {
			t.Errorf("value %q", rec.Value)
		}
	}
	want := map[string]int{"malformed": 2, "invalid": 2, "too_many_hops": 1, "unknown_tenant": 1}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
	// Their corrected repeats go through.
	r.view.subscribe("nobody", 2, "", "*")
	r.produce(r.record(event("acme", "b", "order.paid"), 1), r.record(event("acme", "h", "order.paid"), 1), r.record(event("nobody", "u", "order.paid"), 1))
	r.deliveries(3)
}

func TestWideEventBecomesPages(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		const endpoints = 2500
		for n := range endpoints {
			r.view.subscribe("acme", n, "", "*")
		}
		r.start("a")
		ev := event("acme", "wide", "order.paid")
		ev.Data = make([]byte, 20_000) // 50 MB of copies: several transactions
		r.produce(r.record(ev, 0))
		seen := map[string]bool{}
		for _, d := range r.deliveries(endpoints) {
			seen[d.Endpoint] = true
			if len(d.Event.Data) != len(ev.Data) || d.EventID != ev.EventID() || d.MadeAt.IsZero() {
				t.Fatalf("delivery %+v", d)
			}
		}
		if len(seen) != endpoints {
			t.Errorf("%d endpoints, want %d", len(seen), endpoints)
		}
	})
}

// A crash between claim and commit leaves a claim at the event's own position.
func TestClaimWithoutCommitLosesNothing(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		r.view.subscribe("acme", 1, "", "*")
		ev := event("acme", "e", "order.paid")
		r.produce(r.record(ev, 2))
		topicID, err := broker.TopicID(t.Context(), r.cl, r.topics.Events)
		if err != nil {
			t.Fatal(err)
		}
		it := item{rec: r.record(ev, 2)}
		if it.decode(topicID); it.reject != nil {
			t.Fatal(it.reject.detail)
		}
		if err := (claimer{r.rdb, time.Hour}).claimAll(t.Context(), []*claim{&it.claim}); err != nil {
			t.Fatal(err)
		}
		r.start("a")
		r.deliveries(1)
	})
}

// What a killed process wrote without committing it is never seen, and holds up
// its successor no longer than the start of it.
func TestAbandonedTransactionIsInvisible(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		ep := r.view.subscribe("acme", 1, "", "*")
		dead, err := r.broker.NewClient(kgo.TransactionalID(r.broker.Group(Group)+".a"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		if err := dead.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := dead.ProduceSync(t.Context(), &kgo.Record{Topic: r.topics.Deliveries, Partition: r.layout.Partition(ep), Value: []byte("half")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		dead.Close()
		r.start("a")
		r.produce(r.record(event("acme", "e", "order.paid"), 0))
		r.deliveries(1)
	})
}

// A batch that uses up a tenant's filter budget comes back in smaller parts, and
// no event loses its filter.
func TestFilterBudgetMakesPollsSmaller(t *testing.T) {
	r := newRig(t)
	r.view.subscribe("acme", 1, `source.startsWith("/shop")`, "*")
	const events = 300
	var records []*kgo.Record
	for n := range events {
		records = append(records, r.record(event("acme", strconv.Itoa(n), "order.paid"), int32(n%8)))
	}
	r.produce(records...)
	reader := sdkmetric.NewManualReader()
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("fanout")
	r.start("a", func(c *Config) { c.FilterBudget, c.Meter = 20, meter })
	r.deliveries(events)
	if sums(t, reader, "postrider.fanout.drops")[""] == 0 {
		t.Error("no batch was too costly")
	}
	r.decisions(0)
}

// Whatever is fenced, taken or flushed away: every event comes out exactly once.
func TestExactlyOnceUnderChurn(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		const events, rounds = 20_000, 10
		r.view.subscribe("acme", 1, "", "*")
		quick := func(c *Config) {
			c.Options = []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(100 * time.Millisecond)}
		}
		instances := []string{"a", "b", "c"}
		stops := map[string]func(){}
		for _, name := range instances {
			_, stops[name] = r.start(name, quick)
		}
		for round := range rounds {
			for n := range events / rounds {
				id := strconv.Itoa(round*events/rounds + n)
				r.cl.Produce(t.Context(), r.record(event("acme", id, "order.paid"), int32(n%8)), nil)
			}
			r.progress(round * events / rounds) // the middle of the work
			name := instances[round%len(instances)]
			switch round % 4 {
			case 0, 2:
				stops[name]()
				_, stops[name] = r.start(name, quick)
			case 1:
				r.fence(name)
			case 3:
				_, stops["guest"] = r.start("guest", quick)
				r.progress(round*events/rounds + 10)
				stops["guest"]()
			}
			if r.mini != nil {
				r.mini.FlushAll()
			}
		}
		if err := r.cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, d := range r.deliveries(events) {
			seen[d.Event.ID]++
		}
		if len(seen) != events {
			t.Errorf("%d different events, want %d", len(seen), events)
		}
	})
}

// progress waits until more than so many offsets of deliveries are taken.
func (r *rig) progress(than int) {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(r.tb.Context(), settleWait)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		ends, err := kadm.NewClient(r.cl).ListCommittedOffsets(ctx, r.topics.Deliveries)
		var sum int64
		ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
		if err == nil && sum > int64(than) {
			return
		}
		select {
		case <-ctx.Done():
			r.tb.Fatalf("no progress beyond %d deliveries: %d, %v", than, sum, err)
		case <-tick.C:
		}
	}
}

// fence does what a second process under the same name would do to the producer.
func (r *rig) fence(instance string) {
	cl, err := r.broker.NewClient(kgo.TransactionalID(r.broker.Group(Group) + "." + instance))
	if err != nil {
		r.tb.Fatal(err)
	}
	defer cl.Close()
	if _, _, err := cl.ProducerID(r.tb.Context()); err != nil {
		r.tb.Fatal(err)
	}
}

// The stage against a model of it, over random events: repeats, conflicts, types
// nobody asked for, tenants that do not exist, nonsense.
func TestModel(t *testing.T) {
	eachKafka(t, func(t *testing.T, r *rig) {
		rng := rand.New(rand.NewPCG(1, 2))
		byType := map[string]map[string]int{}
		for _, tenant := range []string{"t0", "t1"} {
			r.view.subscribe(tenant, 1, "", "a.x")
			r.view.subscribe(tenant, 2, "", "a.*")
			r.view.subscribe(tenant, 3, `source == "/s1"`, "*")
			byType[tenant] = map[string]int{"a.x": 2, "a.y": 1, "b": 0}
		}
		want := map[string]int{}
		claimed := map[string]string{}
		deliveries := 0
		var records []*kgo.Record
		for range 3000 {
			ev := event(fmt.Sprintf("t%d", rng.IntN(3)), strconv.Itoa(rng.IntN(1500)), []string{"a.x", "a.y", "b"}[rng.IntN(3)])
			ev.Source = fmt.Sprintf("/s%d", rng.IntN(2))
			ev.Data = fmt.Appendf(nil, `%d`, rng.IntN(2))
			if rng.IntN(50) == 0 {
				ev.Source = ""
			}
			records = append(records, r.record(ev, 0)) // one partition: the model's order
			matches, ok := byType[ev.Tenant]
			n := matches[ev.Type]
			if ev.Source == "/s1" {
				n++
			}
			data, repeat := claimed[ev.EventID()]
			switch {
			case !ok || ev.Source == "":
				want["rejected"]++
				continue
			case repeat && data == string(ev.Data):
				want[string(schemas.ReasonDuplicate)]++
				continue
			case repeat:
				want[string(schemas.ReasonConflict)]++
				continue
			case n == 0:
				want[string(schemas.ReasonUnmatched)]++
			case ev.Source == "/s0":
				want["filtered too"]++
			}
			claimed[ev.EventID()] = string(ev.Data)
			deliveries += n
		}
		r.start("a")
		r.produce(records...)
		r.deliveries(deliveries)
		r.checkModel(want)
	})
}

// checkModel compares what was not simply delivered. With a filter that always
// says no to source /s0, an event without a match there is "filtered", too.
func (r *rig) checkModel(want map[string]int) {
	r.tb.Helper()
	got := map[string]int{"rejected": len(r.exactly(r.topics.Rejected, want["rejected"]))}
	total := want["duplicate"] + want["conflict"] + want["unmatched"] + want["filtered too"]
	for _, d := range r.decisions(total) {
		_, matched := d.Reasons[schemas.ReasonMatched]
		switch {
		case d.Reasons[schemas.ReasonDuplicate].Count == 1:
			got["duplicate"]++
		case d.Reasons[schemas.ReasonConflict].Count == 1:
			got["conflict"]++
		case matched:
			got["filtered too"]++
		default:
			got["unmatched"]++
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.tb.Errorf("model (-want +got):\n%s", diff)
	}
}
