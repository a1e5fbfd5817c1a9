package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/signature"
	"github.com/postrider/postrider/schemas"
)

// populateBatch is how many endpoints are produced at a time.
const populateBatch = 1000

// populate makes a tenant and n endpoints that all get bench.0. The tenant comes
// from the API, the endpoints straight into topic registry, as the API would
// write them: it makes one endpoint of a tenant after the other, and each takes
// longer the more there are. It returns when the view has them all.
func (s *stage) populate(ctx context.Context, n int) error {
	s.endpoints = int64(n)
	api := s.gateway.api()
	if err := api.newTenant(ctx, s.tenant()); err != nil {
		return err
	}
	client, err := s.gateway.kafka()
	if err != nil {
		return err
	}
	defer client.Close()
	sealer, err := registry.NewSealer(s.setup.seal)
	if err != nil {
		return err
	}
	topic, last := broker.Names(s.gateway.prefix).Registry, ""
	for first := 0; first < n; first += populateBatch {
		var records []*kgo.Record
		for i := first; i < min(first+populateBatch, n); i++ {
			ep, sub, err := s.entities(sealer, i)
			if err != nil {
				return err
			}
			last = ep.ID
			records = append(records, registryRecord(topic, s.tenant(), sub.ID, sub), registryRecord(topic, s.tenant(), ep.ID, ep))
		}
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return fmt.Errorf("write endpoints to %s: %w", topic, err)
		}
	}
	return s.awaitEndpoint(ctx, api, last)
}

// entities are endpoint number i and its subscription.
func (s *stage) entities(sealer *registry.Sealer, i int) (*registry.Endpoint, *registry.Subscription, error) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	meta := registry.Meta{Version: schemas.Version, CreatedAt: now, UpdatedAt: now}
	id := schemas.NewID(schemas.PrefixEndpoint)
	sealed, err := sealer.Seal([]byte(signature.NewSecret()), s.tenant(), id, registry.SecretField)
	if err != nil {
		return nil, nil, err
	}
	ep := &registry.Endpoint{
		Meta: meta, ID: id, Tenant: s.tenant(), State: registry.StateEnabled, URL: s.sink.url(place{run: s.id, endpoint: i}),
		Secrets: []registry.Secret{{Sealed: sealed, CreatedAt: now}},
	}
	sub := &registry.Subscription{
		Meta: meta, ID: schemas.NewID(schemas.PrefixSubscription), Tenant: s.tenant(), Endpoint: id, Types: []string{eventType(0)},
	}
	return ep, sub, nil
}

// registryRecord is the record that makes an entity.
func registryRecord(topic, tenant, entity string, value any) *kgo.Record {
	text, _ := json.Marshal(value) // of types that always can be
	return &kgo.Record{
		Topic: topic, Key: registry.EncodeKey(tenant, entity), Value: text,
		Headers: []kgo.RecordHeader{{Key: registry.HeaderPrev, Value: []byte("-1")}},
	}
}

// awaitEndpoint waits until the gateway knows an endpoint.
func (s *stage) awaitEndpoint(ctx context.Context, a api, id string) error {
	var last error
	err := poll(ctx, 5*time.Minute, func() (bool, error) {
		_, last = a.ask(ctx, "GET", "/v1/tenants/"+s.tenant()+"/endpoints/"+id, nil)
		return last == nil, s.gateway.ended()
	})
	if err != nil {
		return fmt.Errorf("wait for endpoint %s: %w (last: %w)", id, err, last)
	}
	return nil
}
