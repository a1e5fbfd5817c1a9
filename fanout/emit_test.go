package fanout

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

func noTracer() trace.Tracer { return noop.Tracer{} }

func newTestOutbox(testing.TB) *outbox {
	return &outbox{
		topics: broker.Names(""), layout: broker.Layout{Deliveries: 8, ScheduleShards: 1, Version: 1},
		maxSize: 100_000, now: time.UnixMilli(1_700_000_000_000), results: map[string]int{},
	}
}

// A page, expanded again and again with random room left, becomes exactly one
// delivery per endpoint, and no transaction goes beyond its bounds.
func TestPagesLoseAndDoubleNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(1, 4000).Draw(t, "endpoints")
		data := rapid.SampledFrom([]int{0, 500, 60_000, 90_000}).Draw(t, "data")
		endpoints := make([]string, total)
		for i := range endpoints {
			endpoints[i] = fmt.Sprintf("ep_%026d", i)
		}
		ev := event("acme", "wide", "order.paid")
		ev.Data = make([]byte, data)
		out := newTestOutbox(nil)
		if r := out.page(&kgo.Record{}, schemas.Page{Event: ev, EventID: ev.EventID(), MadeAt: out.now}, endpoints); r != nil {
			t.Fatal(r.detail)
		}
		waiting := out.records
		seen := map[string]int{}
		for round := 0; len(waiting) > 0; round++ {
			if round > 2*total+10 {
				t.Fatal("no progress")
			}
			out := newTestOutbox(nil)
			n := min(len(waiting), rapid.IntRange(1, 5).Draw(t, "poll"))
			for _, rec := range waiting[:n] {
				item := pageItem{rec: rec}
				if item.decode(); item.reject != nil {
					t.Fatal(item.reject.detail)
				}
				out.expand(&item)
			}
			waiting = waiting[n:]
			if out.deliveries > aimDeliveries || out.bytes > aimBytes+n*out.maxSize {
				t.Fatalf("%d deliveries, %d bytes in one transaction", out.deliveries, out.bytes)
			}
			for _, rec := range out.records {
				if size := recordSize(rec.Key, rec.Value, rec.Headers); size > out.maxSize {
					t.Fatalf("record of %d bytes", size)
				}
				if rec.Topic == out.topics.Pages {
					waiting = append(waiting, rec)
				} else {
					seen[string(rec.Key)]++
				}
			}
		}
		for _, ep := range endpoints {
			if seen[ep] != 1 {
				t.Fatalf("%s has %d deliveries", ep, seen[ep])
			}
		}
	})
}

func TestEventBecomesPagesWhenItNoLongerFits(t *testing.T) {
	view := newStaticView()
	for n := range 400 {
		view.subscribe("acme", n, "", "many")
	}
	view.subscribe("acme", 1000, "", "one")
	snaps, err := view.Load(t.Context(), []string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	acme := judged{newTestCache(t, 1000).store(snaps[0]), 1}
	out, m := newTestOutbox(t), newMatcher(noTracer(), 1000)
	put := func(id, eventType string, size int) {
		ev := event("acme", id, eventType)
		ev.Data = make([]byte, size)
		if err := m.emit(t.Context(), &item{rec: &kgo.Record{}, event: ev, id: ev.EventID(), tenant: acme}, out); err != nil {
			t.Fatal(err)
		}
	}
	put("fits", "many", 10_000)      // 4 MB
	put("too many", "many", 90_000)  // 36 MB
	put("single", "one", 90_000)     // its page would be no smaller
	put("oversized", "many", 99_900) // no delivery of it fits a record
	want := map[string]int{out.topics.Deliveries: 401, out.topics.Pages: 2, out.topics.Rejected: 1}
	got := map[string]int{}
	for _, rec := range out.records {
		got[rec.Topic]++
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"matched": 2, "paged": 1, "rejected": 1}, out.results); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
}

// A tenant whose filters use up the budget makes the batch smaller, and loses
// filters only when one event alone does so.
// What has an order can't become pages: a batch that asks for too much of it is
// polled in smaller parts, down to one event.
func TestOrderedDeliveriesAreBounded(t *testing.T) {
	view := newStaticView()
	for n := range registry.MaxOrdered {
		ep := view.subscribe("acme", n, "", "*")
		view.put("acme", ep, registry.Endpoint{ID: ep, Tenant: "acme", State: registry.StateEnabled, Ordered: true})
	}
	for n := range schemas.MaxPageEndpoints {
		view.subscribe("acme", 1000+n, "", "wide")
	}
	snaps, err := view.Load(t.Context(), []string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	acme := judged{newTestCache(t, 10_000).store(snaps[0]), 1}
	for _, tt := range []struct {
		eventType string
		size      int
		most      int // events
	}{
		{"narrow", 10, 2*aimDeliveries/registry.MaxOrdered + 1},
		{"narrow", 90_000, 1},
		{"wide", 10, aimDeliveries/registry.MaxOrdered + 1},
		{"wide", 90_000, 1},
	} {
		t.Run(fmt.Sprintf("%s of %d bytes", tt.eventType, tt.size), func(t *testing.T) {
			out, m := newTestOutbox(t), newMatcher(noTracer(), 1_000_000)
			for n := 0; ; n++ {
				ev := event("acme", strconv.Itoa(n), tt.eventType)
				ev.Data = make([]byte, tt.size)
				err := m.emit(t.Context(), &item{rec: &kgo.Record{}, event: ev, id: ev.EventID(), tenant: acme}, out)
				if errors.Is(err, errTooCostly) && n > 0 {
					return
				}
				if err != nil || n >= tt.most {
					t.Fatalf("event %d, %d deliveries of %d bytes: %v, want %v", n, out.deliveries, out.bytes, err, errTooCostly)
				}
			}
		})
	}
}

func TestFilterBudget(t *testing.T) {
	view := newStaticView()
	view.subscribe("acme", 1, `source.startsWith("/shop")`, "*")
	snaps, err := view.Load(t.Context(), []string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	acme := judged{newTestCache(t, 10).store(snaps[0]), 1}
	next := func(id string) *item {
		ev := event("acme", id, "order.paid")
		return &item{rec: &kgo.Record{}, event: ev, id: ev.EventID(), tenant: acme}
	}
	m := newMatcher(noTracer(), 1)
	if err := m.emit(t.Context(), next("1"), newTestOutbox(t)); err != nil {
		t.Fatalf("the first event: %v", err)
	}
	if err := m.emit(t.Context(), next("2"), newTestOutbox(t)); !errors.Is(err, errTooCostly) {
		t.Fatalf("the second event: %v, want %v", err, errTooCostly)
	}
	m = newMatcher(noTracer(), 0)
	out := newTestOutbox(t)
	if err := m.emit(t.Context(), next("3"), out); err != nil {
		t.Fatal(err)
	}
	d, err := schemas.DecodeDecision(out.records[0].Value)
	if err != nil || d.Reasons[schemas.ReasonFilterError].Count != 1 {
		t.Errorf("decision %+v, %v", d, err)
	}
}

func TestTraceGoesOnFromTheSpan(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	view := newStaticView()
	view.subscribe("acme", 1, "", "*")
	snaps, err := view.Load(t.Context(), []string{"acme"})
	if err != nil {
		t.Fatal(err)
	}
	acme := judged{newTestCache(t, 10).store(snaps[0]), 1}
	m := newMatcher(provider.Tracer("fanout"), 1000)
	const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	tests := []struct{ name, in string }{
		{"sampled", "00-" + traceID + "-00f067aa0ba902b7-01"},
		{"not sampled", "00-" + traceID + "-00f067aa0ba902b7-00"},
		{"none", ""},
	}
	for _, tt := range tests {
		spans.Reset()
		b := batch{events: make([]item, 1), records: 1}
		ev := event("acme", "e", "order.paid")
		ev.TraceParent = tt.in
		b.events[0] = item{rec: &kgo.Record{}, event: ev, id: ev.EventID(), tenant: acme}
		out := newTestOutbox(t)
		if err := m.emit(t.Context(), &b.events[0], out); err != nil {
			t.Fatal(err)
		}
		b.endSpans(true)
		d, err := schemas.DecodeDelivery(out.records[0].Key, out.records[0].Value, out.records[0].Headers)
		if err != nil {
			t.Fatal(err)
		}
		if tt.name != "sampled" {
			if d.Event.TraceParent != tt.in || len(spans.GetSpans()) != 0 {
				t.Errorf("%s: traceparent %q, %d spans", tt.name, d.Event.TraceParent, len(spans.GetSpans()))
			}
			continue
		}
		span := spans.GetSpans()[0]
		if want := telemetry.Traceparent(span.SpanContext); d.Event.TraceParent != want {
			t.Errorf("traceparent %q, want %q", d.Event.TraceParent, want)
		}
		if span.SpanContext.TraceID().String() != traceID || span.Parent.SpanID().String() != "00f067aa0ba902b7" {
			t.Errorf("span %v below %v", span.SpanContext, span.Parent)
		}
	}
}

func TestSizer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var z sizer
		for range rapid.IntRange(1, 50).Draw(t, "batches") {
			n := z.next()
			if n < 1 || n > maxPoll {
				t.Fatalf("polls %d records", n)
			}
			if rapid.IntRange(0, 9).Draw(t, "costly") == 0 {
				z.shrink(n)
				if z.next() > max(1, n/8) {
					t.Fatalf("polls %d records after %d were too costly", z.next(), n)
				}
				continue
			}
			each := rapid.IntRange(0, 20_000).Draw(t, "deliveries")
			z.observe(load{records: n, deliveries: n * each, bytes: n * each * 100, matching: time.Duration(n) * time.Microsecond})
			if each > 0 && z.next() > max(1, aimDeliveries/each) {
				t.Fatalf("polls %d records of %d deliveries", z.next(), each)
			}
		}
	})
	var z sizer
	z.observe(load{records: 1, deliveries: 5000})
	z.shrink(1)
	sizes := []int{z.next()}
	for range 100 {
		z.observe(load{records: 1, deliveries: 1, bytes: 100, matching: time.Microsecond})
		sizes = append(sizes, z.next())
	}
	if !slices.IsSorted(sizes) || sizes[0] != 1 || sizes[100] < maxPoll*9/10 {
		t.Errorf("recovers as %v", sizes)
	}
}
