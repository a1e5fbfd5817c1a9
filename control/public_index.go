package control

import (
	"bytes"
	"strings"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// applyEndpointLocked keeps the public keys of endpoints, and which of them are
// sealed with an older key: only those that have one cost memory. Other entities are
// none of its business.
func (x *tenantIndex) applyEndpointLocked(r registry.Record) error {
	if !strings.HasPrefix(r.Entity, schemas.PrefixEndpoint+"_") || strings.Contains(r.Entity, "/") {
		return nil
	}
	delete(x.public, r.Entity)
	x.outdated.remove(r.Tenant, r.Entity)
	if r.Value == nil || x.isOutdated == nil && !bytes.Contains(r.Value, []byte(`"public_key"`)) { // spares the reading of most
		return nil
	}
	e, err := registry.Decode[registry.Endpoint](r.Value)
	if err != nil {
		return err
	}
	if x.isOutdated != nil && x.isOutdated(e) {
		x.outdated.add(r.Tenant, r.Entity)
	}
	var public []registry.Secret
	for _, secret := range e.Secrets {
		if secret.Public != "" {
			secret.Sealed = ""
			public = append(public, secret)
		}
	}
	if len(public) > 0 {
		x.public[r.Entity] = public
	}
	return nil
}

// publicSecrets returns an endpoint's ed25519 secrets without what is sealed,
// newest first. They are shared: nobody changes them.
func (x *tenantIndex) publicSecrets(endpoint string) []registry.Secret {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.public[endpoint]
}
