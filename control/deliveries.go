package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/schemas"
)

const (
	// testType is the event type of test events.
	testType = schemas.TestType
	// testSource is their source.
	testSource = schemas.TestSource
	// produceTimeout bounds the wait for Kafka's acknowledgement.
	produceTimeout = 10 * time.Second
)

type testInput struct {
	EndpointPath
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"Repeats under the same key are the same event and are delivered once."`
}

// sent names what was handed to delivery.
type sent struct {
	EventID    string `json:"event_id" doc:"The webhook-id."`
	DeliveryID string `json:"delivery_id"`
}

type cancelInput struct {
	TenantPath
	Delivery string `path:"delivery" maxLength:"64"`
	Body     struct {
		Endpoint string `json:"endpoint_id" doc:"The endpoint that the delivery is for."`
	} `nameHint:"Cancel"`
}

func (s *Server) registerDeliveries(api huma.API) {
	handle(s, api, operation{
		method: http.MethodPost, path: "/v1/tenants/{tenant}/deliveries/{delivery}/cancel", id: "cancel-delivery", tag: "deliveries",
		status: http.StatusAccepted, summary: "Ask for a delivery to be cancelled",
		description: "The endpoint's owner ends it when it meets it; an attempt that is under way is finished. 202 says that it was asked for: " +
			"a cancel does nothing if the delivery is over or is not one of the endpoint, and may be dropped while 10,000 others of the endpoint are open.",
	}, s.cancelDelivery)
}

// testEndpoint makes a delivery as fan-out would, matched at the endpoint's own
// version. It has no place in events: its position is 0.0.
func (s *Server) testEndpoint(ctx context.Context, in *testInput) (*answer[sent], error) {
	st, ep, err := s.findEndpoint(ctx, in.EndpointPath)
	if err != nil {
		return nil, err
	}
	if err := writable(st); err != nil {
		return nil, err
	}
	if is := ep.Effective(st.Health[ep.ID]); is != registry.StateEnabled {
		return nil, wrongState("test", is, "the event would only wait")
	}
	d, err := s.testDelivery(ctx, ep, st.Offsets[ep.ID], in.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	record := &kgo.Record{
		Topic: s.topics.Deliveries, Partition: s.cfg.Layout.Partition(ep.ID), Key: []byte(ep.ID),
		Value: d.Event.Data, Headers: schemas.AppendDeliveryHeaders[kgo.RecordHeader](nil, d),
	}
	if err := s.produce(ctx, record); err != nil {
		return nil, err
	}
	return &answer[sent]{Status: http.StatusAccepted, Body: sent{EventID: d.EventID, DeliveryID: d.ID}}, nil
}

func (s *Server) testDelivery(ctx context.Context, ep *registry.Endpoint, offset int64, key string) (*schemas.Delivery, error) {
	now := s.now()
	data, err := json.Marshal(map[string]string{
		"endpoint_id": ep.ID, "tenant": ep.Tenant, "message": "This is a test event from Postrider.",
	})
	if err != nil {
		return nil, err
	}
	if key != "" { // the same key on another endpoint is another event
		key = ep.ID + "/" + key
	}
	ev := schemas.Event{
		ID: cmp.Or(key, uuid.Must(uuid.NewV7()).String()), Source: testSource, Type: testType, Time: now.Format(time.RFC3339Nano),
		DataContentType: "application/json", Tenant: ep.Tenant, Data: data,
		TraceParent: telemetry.Traceparent(trace.SpanContextFromContext(ctx)),
	}
	id := ev.EventID()
	return &schemas.Delivery{
		Event: ev, EventID: id, ID: schemas.DeliveryID(id, ep.ID, ""), Endpoint: ep.ID,
		Registry: offset, Attempt: 1, MadeAt: now,
	}, nil
}

// cancelDelivery writes the cancel for the endpoint's owner (DESIGN 4.4).
func (s *Server) cancelDelivery(ctx context.Context, in *cancelInput) (*empty, error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	if schemas.CheckID(schemas.PrefixDelivery, in.Delivery) != nil {
		return nil, notFound("delivery")
	}
	ep := st.Endpoints[in.Body.Endpoint]
	if ep == nil {
		return nil, invalid(fault{pointer: "/endpoint_id", detail: "the tenant has no such endpoint"})
	}
	value, err := json.Marshal(map[string]any{"v": schemas.Version, "at": s.now(), "by": callOf(ctx).actor()})
	if err != nil {
		return nil, err
	}
	// Which shard has the delivery is not known, nor how many there were then.
	var records []*kgo.Record
	for shard := range max(ep.MostShards, 1) {
		records = append(records, &kgo.Record{
			Topic: s.topics.Lanes, Partition: s.cfg.Layout.Partition(schemas.LaneName(ep.ID, shard)),
			Key: schemas.CancelKey(ep.ID, in.Delivery), Value: value,
		})
	}
	return nil, s.produce(ctx, records...)
}

// produce writes records to the partitions that they name, together, and waits for
// the acknowledgements. A time-out leaves the outcome unknown.
func (s *Server) produce(ctx context.Context, records ...*kgo.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), produceTimeout)
	defer cancel()
	err := s.kafka.ProduceSync(ctx, records...).FirstErr()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kgo.ErrMaxBuffered), errors.Is(err, kerr.UnknownTopicOrPartition):
		f := unavailable(err)
		f.detail = "Kafka does not take the record"
		return f
	}
	return errors.Join(registry.ErrOutcomeUnknown, err)
}
