package main

import (
	"testing"

	"github.com/postrider/postrider/internal/registry"
)

// What populate writes is what the gateway reads: the endpoint's secret opens.
func TestEntitiesCanBeRead(t *testing.T) {
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := registry.NewSealer(keyset)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{id: 3, sink: &sinkProcess{port: "4000"}}
	ep, sub, err := s.entities(sealer, 101)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := registry.DecodeRecord(registryRecord("registry", s.tenant(), ep.ID, ep))
	if err != nil || rec.Tenant != "bench3" || rec.Entity != ep.ID || rec.Prev != registry.PrevAbsent {
		t.Fatalf("got %+v, %v", rec, err)
	}
	read, err := registry.Decode[registry.Endpoint](rec.Value)
	if err != nil || read.URL != "http://127.0.0.2:4000/3/101" || read.State != registry.StateEnabled {
		t.Errorf("got %+v, %v", read, err)
	}
	if _, err := sealer.Open(read.Secrets[0].Sealed, "bench3", ep.ID, registry.SecretField); err != nil {
		t.Error(err)
	}
	if sub.Endpoint != ep.ID || sub.Types[0] != eventType(0) {
		t.Errorf("subscription: %+v", sub)
	}
}
