package registry

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/schemas"
)

// AuditLostUpdate returns the record for the topic audit that says that r was built
// on another version of its entity than the one before it. It has the form of the
// records that control writes of changes; old and new are not known.
func AuditLostUpdate(topic string, r Record, at time.Time) (*kgo.Record, error) {
	value, err := json.Marshal(schemas.Audit{
		Version: schemas.Version, At: at.UTC().Truncate(time.Millisecond), Who: "projector", What: "lost_update",
		Tenant: r.Tenant, Entity: r.Entity, Offset: r.Offset,
	})
	if err != nil {
		return nil, fmt.Errorf("encode audit record of %s/%s: %w", r.Tenant, r.Entity, err)
	}
	return &kgo.Record{Topic: topic, Key: []byte(r.Tenant + "/" + r.Entity), Value: value}, nil
}
