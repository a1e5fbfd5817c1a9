package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// audit writes one record for each change to the topic audit. The change stands
// already, so an error is logged and counted, and the request goes on.
func (s *Server) audit(ctx context.Context, c change, before *registry.TenantState, changes []registry.Change, w registry.Written) {
	who := callOf(ctx)
	ctx = context.WithoutCancel(ctx)
	for i, ch := range changes {
		if strings.HasSuffix(ch.Entity, registry.ReportSuffix) {
			continue // what deliver told goes with its endpoint
		}
		s.writeAudit(ctx, schemas.Audit{
			Who: who.actor(), What: c.action, Tenant: ch.Tenant, Entity: ch.Entity, Offset: w.Offsets[i],
			Old: redacted(stored(before, ch.Entity)), New: redacted(ch.Value), RequestID: who.requestID,
		})
	}
}

// LostUpdate writes to the topic audit that a record of the registry was built on
// another version than the one before it. It fits registry.ProjectorConfig and
// does not wait for Kafka.
func (s *Server) LostUpdate(r registry.Record) {
	s.log.Error("an update of the registry was lost", slog.String("tenant", r.Tenant), slog.String("entity", r.Entity), slog.Int64("offset", r.Offset))
	ctx := context.Background()
	record, err := registry.AuditLostUpdate(s.topics.Audit, r, s.now())
	if err != nil {
		s.auditFailed(ctx, err)
		return
	}
	s.produceAudit(ctx, record)
}

// writeAudit completes the record and hands it to the producer.
func (s *Server) writeAudit(ctx context.Context, rec schemas.Audit) {
	rec.Version, rec.At = schemas.Version, s.now()
	value, err := json.Marshal(rec)
	if err != nil {
		s.auditFailed(ctx, err)
		return
	}
	s.produceAudit(ctx, &kgo.Record{Topic: s.topics.Audit, Key: []byte(rec.Tenant + "/" + rec.Entity), Value: value})
}

func (s *Server) produceAudit(ctx context.Context, record *kgo.Record) {
	s.kafka.TryProduce(ctx, record, func(_ *kgo.Record, err error) {
		if err != nil {
			s.auditFailed(ctx, err)
		}
	})
}

func (s *Server) auditFailed(ctx context.Context, err error) {
	s.metrics.auditErrors.Add(ctx, 1)
	s.log.ErrorContext(ctx, "could not write an audit record", slog.Any("error", err))
}

// stored returns the entity as it was, nil if it was not there.
func stored(st *registry.TenantState, entity string) any {
	prefix, _, _ := strings.Cut(entity, "_")
	switch {
	case entity == registry.TenantEntity:
		return present(st.Tenant)
	case strings.HasSuffix(entity, registry.HealthSuffix):
		return present(st.Health[strings.TrimSuffix(entity, registry.HealthSuffix)])
	case prefix == schemas.PrefixEndpoint:
		return present(st.Endpoints[entity])
	case prefix == schemas.PrefixSubscription:
		return present(st.Subscriptions[entity])
	case prefix == schemas.PrefixKey:
		return present(st.Keys[entity])
	}
	return nil
}

// present returns a nil interface for a nil pointer.
func present[E any](e *E) any {
	if e == nil {
		return nil
	}
	return e
}

// redacted writes an entity without what is secret: sealed secrets, hashes of
// tokens, the caller's Idempotency-Keys, and a URL's query, which often holds one.
func redacted(entity any) json.RawMessage {
	switch e := entity.(type) {
	case *registry.Endpoint:
		copied := *e
		copied.Idempotency = nil
		copied.URL, _, _ = strings.Cut(e.URL, "?")
		copied.Receiver = hideReceiver(e.Receiver)
		copied.Secrets = make([]registry.Secret, len(e.Secrets))
		for i, secret := range e.Secrets {
			copied.Secrets[i] = registry.Secret{Sealed: "redacted", Public: secret.Public, CreatedAt: secret.CreatedAt, ExpiresAt: secret.ExpiresAt}
		}
		entity = &copied
	case *registry.Key:
		copied := *e
		copied.Idempotency, copied.Hash = nil, "redacted"
		entity = &copied
	case *registry.Subscription:
		copied := *e
		copied.Idempotency = nil
		entity = &copied
	}
	doc, err := json.Marshal(entity)
	if err != nil {
		return json.RawMessage("null")
	}
	return doc
}
