package deliver

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/egress"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// quickPoster answers without a network.
type quickPoster struct{}

func (quickPoster) Do(context.Context, *egress.Request) egress.Result {
	return egress.Result{Status: http.StatusOK, Duration: time.Millisecond, Body: []byte("ok")}
}

// BenchmarkAttempt is what one delivery costs beside Kafka's client and HTTP:
// decode, admit, take, sign, judge, encode the outcome, finish.
func BenchmarkAttempt(b *testing.B) {
	m, err := newMeters(noop.NewMeterProvider().Meter(""), false)
	if err != nil {
		b.Fatal(err)
	}
	layout := broker.Layout{Deliveries: 1, ScheduleShards: 1, Version: 1}
	w := &Worker{
		cfg: Config{Instance: "b"}.withDefaults(), topics: broker.Names(""), meters: m, life: b.Context(), homes: map[int32]*home{},
		slots: newSlots(64, 2*64, 100), running: map[*entry]struct{}{}, queued: map[*lane]struct{}{},
		alarms: newAlarms(), unreported: map[*lane]struct{}{},
		deps: Deps{Layout: layout, Egress: quickPoster{}, Tracer: tracenoop.NewTracerProvider().Tracer("")},
	}
	w.settled = sync.NewCond(&w.mu)
	h := newHome(b.Context(), 0)
	defer h.cancel()
	h.phase, h.tracker, h.lease = phaseReady, newTracker(0), time.Now().Add(time.Hour)
	w.homes[0] = h
	e := &registry.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://a.example/", State: registry.StateEnabled, Secrets: []registry.Secret{{Sealed: signature.NewSecret()}}}
	now := time.Now()
	l := w.lane(h, e.ID, "acme", now)
	if l.know.target, err = newTarget(e, 1, 0, plainSealer{}, DefaultMaxAge); err != nil {
		b.Fatal(err)
	}
	l.know.readAt = 1
	ev := schemas.Event{ID: "e1", Source: "/bench", Type: "order.paid", Tenant: "acme", Time: "2026-11-22T10:00:00Z", Data: make([]byte, 0, 1024)}
	ev.Data = append(append(append(ev.Data, `{"x":"`...), make1k()...), `"}`...)
	d := schemas.Delivery{Event: ev, ID: schemas.DeliveryID(ev.EventID(), e.ID, ""), EventID: ev.EventID(), Endpoint: e.ID, Registry: -1, Attempt: 1, MadeAt: now}
	r := &kgo.Record{Key: []byte(e.ID), Value: ev.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, &d), Timestamp: now}
	b.ReportAllocs()
	for i := range int64(b.N) {
		got, err := w.decode(r)
		if err != nil {
			b.Fatal(err)
		}
		h.tracker.receive(i, 0)
		w.admit(h, &entry{delivery: got, offset: i, appended: now, received: now}, now)
		x := w.next(now)
		t := w.permit(x)
		ctx, span := w.span(x, t)
		res := w.deps.Egress.Do(ctx, newRequest(t, &x.delivery, "", now))
		v := judge(t, &x.delivery, &res, now)
		endSpan(span, &res, &v)
		a := newAttempt(x, &v, now)
		a.describe(&res, span.SpanContext())
		value := a.encode()
		w.meters.attempt(ctx, &a.Attempt)
		w.land(x, t, &v, &res, now)
		w.unwritten, h.unwritten = w.unwritten+1, h.unwritten+1
		w.done(x, i)
		h.completions.settle(h.tracker.watermark(), i+1)
		if len(value) == 0 {
			b.Fatal("no outcome")
		}
	}
}

func make1k() []byte {
	out := make([]byte, 1000)
	for i := range out {
		out[i] = 'a'
	}
	return out
}
