package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// PublishHealth writes the health of an endpoint, its owner's judgement, and
// returns when Kafka has it. The key has one writer, the endpoint's owner, so
// there is no lock; the header prev names the version of the *endpoint* that was
// judged, and the projector does not judge it. An error may leave the record
// written or not: the caller repeats until it succeeds.
func PublishHealth(ctx context.Context, cl *kgo.Client, topic string, h Health) error {
	h.Version = schemas.Version
	value, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode health of %s: %w", h.Endpoint, err)
	}
	entity := h.Endpoint + HealthSuffix
	if err := checkName(h.Tenant, entity); err != nil {
		return fmt.Errorf("health of %s: %w: %w", h.Endpoint, ErrMalformed, err)
	}
	r := newRecord(topic, Record{Tenant: h.Tenant, Entity: entity, Value: value, Prev: h.Judged})
	if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("write health of %s: %w", h.Endpoint, err)
	}
	return nil
}
