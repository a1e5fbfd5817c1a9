package control

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/schemas"
)

// change is what a request wants written, and the outcome. Its fn may run on a
// state that it must not modify; no changes mean that there is nothing to do.
type change struct {
	tenant string
	action string
	// always lets the change through above the bounds of size: it adds next to
	// nothing, and the tenant may need it just then.
	always bool
	fn     func(*registry.TenantState) ([]registry.Change, error)
}

// update runs the change under the tenant's lock. When it returns nil, the
// changes are in Kafka and in the view; the offset is that of the last one, the
// entity that is answered (-1 if nothing was to do).
func (s *Server) update(ctx context.Context, c change) (offset int64, err error) {
	var before *registry.TenantState
	var changes []registry.Change
	written, err := s.deps.Writer.Update(ctx, c.tenant, func(st *registry.TenantState) ([]registry.Change, error) {
		var err error
		before = st
		if changes, err = c.fn(st); err == nil && !c.always {
			err = withinSize(st, changes)
		}
		return changes, err
	})
	if err != nil {
		return -1, err
	}
	if len(changes) == 0 {
		return -1, nil
	}
	offset = written.Offset
	s.wrote(offset)
	s.audit(ctx, c, before, changes, written)
	return offset, nil
}

// wrote raises what a view must have reached to be believed here.
func (s *Server) wrote(offset int64) {
	for {
		old := s.written.Load()
		if offset+1 <= old || s.written.CompareAndSwap(old, offset+1) {
			return
		}
	}
}

func (s *Server) now() time.Time { return s.cfg.Clock().UTC().Truncate(time.Millisecond) }

func (s *Server) newMeta(idem *registry.Idempotency) registry.Meta {
	now := s.now()
	return registry.Meta{Version: schemas.Version, CreatedAt: now, UpdatedAt: now, Idempotency: idem}
}

// touch returns m as it stands in the entity's next version; an Idempotency-Key
// that is no longer remembered is let go.
func (s *Server) touch(m registry.Meta) registry.Meta {
	m.Version, m.UpdatedAt = schemas.Version, s.now()
	if m.Idempotency != nil && m.UpdatedAt.Sub(m.Idempotency.At) >= idempotencyWindow {
		m.Idempotency = nil
	}
	return m
}

// etag is the entity tag (RFC 9110, section 8.8.3) of a version.
func etag(offset int64) string { return `"` + strconv.FormatInt(offset, 10) + `"` }

// checkMatch refuses with 412 if the If-Match header, where there is one, does
// not name the entity's version.
func checkMatch(header string, st *registry.TenantState, entity string) error {
	if header == "" {
		return nil
	}
	offset, exists := st.Offsets[entity]
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if exists && (tag == "*" || tag == etag(offset)) {
			return nil
		}
	}
	return refuse(http.StatusPreconditionFailed, codePrecondition, "the entity has changed: read it again, its ETag is another one")
}

// idempotency returns what to remember of a POST, nil without a key. The request
// is its collection and its body, byte for byte. The body may hold a password, so
// the hash has a key: nobody is to find it out by guessing.
func (s *Server) idempotency(key, collection string, body []byte) *registry.Idempotency {
	if key == "" {
		return nil
	}
	hash := s.deps.Sealer.Fingerprint(append([]byte(collection+"\x00"), body...))
	return &registry.Idempotency{Key: key, Hash: hash, At: s.now()}
}

// repeated finds the entity that an earlier POST made under the same key, nil if
// there is none. The same key for another request is refused.
func repeated[E any](s *Server, entities map[string]*E, want *registry.Idempotency, meta func(*E) *registry.Meta) (*E, error) {
	if want == nil {
		return nil, nil //nolint:nilnil // no key, no earlier request
	}
	for _, e := range entities {
		had := meta(e).Idempotency
		if had == nil || had.Key != want.Key || s.now().Sub(had.At) >= idempotencyWindow {
			continue
		}
		if had.Hash != want.Hash {
			return nil, refuse(http.StatusUnprocessableEntity, codeIdempotencyConflict,
				"this Idempotency-Key was used for another request in the last %s", idempotencyWindow)
		}
		return e, nil
	}
	return nil, nil //nolint:nilnil // not found is no error
}

// names are the members that a patch may have, in this very case; those of a
// member that is an object with known names stand under it.
type names map[string]names

// anyName stands in names for members whose names are the caller's.
const anyName = "*"

// mergePatch applies a JSON merge patch (RFC 7396) to the settings in current.
func mergePatch[T any](current T, patch []byte, known names) (T, error) {
	var out T
	var changes map[string]any
	if err := json.Unmarshal(patch, &changes); err != nil {
		return out, err
	}
	if err := exactNames("", changes, known); err != nil {
		return out, err
	}
	doc, err := json.Marshal(current)
	if err != nil {
		return out, err
	}
	var base map[string]any
	if err := json.Unmarshal(doc, &base); err != nil {
		return out, err
	}
	doc, err = json.Marshal(merge(base, changes))
	if err != nil {
		return out, err
	}
	return out, json.Unmarshal(doc, &out)
}

// exactNames refuses names that differ in case: encoding/json takes them, a
// merge would not.
func exactNames(pointer string, changes map[string]any, known names) error {
	for name, value := range changes {
		below, ok := known[name]
		if !ok {
			below, ok = known[anyName]
		}
		at := pointer + "/" + escape(name)
		if !ok {
			return invalid(fault{pointer: at, detail: "unexpected property"})
		}
		if inner, ok := value.(map[string]any); ok && below != nil {
			if err := exactNames(at, inner, below); err != nil {
				return err
			}
		}
	}
	return nil
}

func merge(base, changes map[string]any) map[string]any {
	if base == nil {
		base = map[string]any{}
	}
	for name, value := range changes {
		switch value := value.(type) {
		case nil:
			delete(base, name)
		case map[string]any:
			inner, _ := base[name].(map[string]any)
			base[name] = merge(inner, value)
		default:
			base[name] = value
		}
	}
	return base
}
