package control

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postrider/postrider/internal/auth"
	"github.com/postrider/postrider/internal/registry"
)

// key is an API key as the API shows it.
type key struct {
	ID        string    `json:"id"`
	Tenant    string    `json:"tenant"`
	Role      string    `json:"role" enum:"admin,producer"`
	Name      string    `json:"name,omitempty"`
	Token     string    `json:"token,omitempty" doc:"Only in the answer that creates the key: it is kept nowhere. Absent when the POST is repeated."`
	CreatedAt time.Time `json:"created_at"`
	ETag      string    `json:"etag"`
}

type keySettings struct {
	Role string `json:"role" enum:"admin,producer" doc:"producer: may send events. admin: may also manage the tenant; of tenant _: all tenants."`
	Name string `json:"name,omitempty" maxLength:"255"`
}

// Creation is what all creating POSTs have: RawBody is what the Idempotency-Key stands for.
type Creation struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"Repeats under the same key within 24 hours create nothing and answer the entity made by the first."`
	RawBody        []byte
}

type postKeyInput struct {
	TenantPath
	Creation
	Body keySettings
}

type keyInput struct {
	TenantPath
	Precondition
	Key string `path:"key" maxLength:"64"`
}

// ListInput has the parameters of a list of what a tenant has.
type ListInput struct {
	TenantPath
	PageQuery
}

func (s *Server) registerKeys(api huma.API) {
	const tag, path = "keys", "/v1/tenants/{tenant}/keys"
	handle(s, api, operation{
		method: http.MethodPost, path: path, id: "create-key", tag: tag, status: http.StatusCreated,
		summary:     "Create an API key",
		description: "The token is shown in this answer alone. A repeat with the same Idempotency-Key answers the same key without it: if the token was lost, delete the key and create another.",
	}, s.createKey)
	handle(s, api, operation{
		method: http.MethodGet, path: path, id: "list-keys", tag: tag, status: http.StatusOK, summary: "List the API keys",
	}, s.listKeys)
	handle(s, api, operation{
		method: http.MethodDelete, path: path + "/{key}", id: "delete-key", tag: tag, status: http.StatusNoContent,
		summary:     "Delete an API key",
		description: "Processes forget it within 5 seconds, or 10 minutes while Redis is away.",
	}, s.deleteKey)
}

func showKey(k *registry.Key, offset int64) key {
	return key{ID: k.ID, Tenant: k.Tenant, Role: string(k.Role), Name: k.Name, CreatedAt: k.CreatedAt, ETag: etag(offset)}
}

func keyMeta(k *registry.Key) *registry.Meta { return &k.Meta }

func (s *Server) createKey(ctx context.Context, in *postKeyInput) (*answer[key], error) {
	idem := s.idempotency(in.IdempotencyKey, "keys", in.RawBody)
	var made *registry.Key
	var token string
	var kept int64
	offset, err := s.update(ctx, change{tenant: in.Tenant, action: "key.create", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		var err error
		token = ""
		if err = keysWritable(st, in.Tenant); err != nil {
			return nil, err
		}
		if made, err = repeated(s, st.Keys, idem, keyMeta); err != nil {
			return nil, err
		}
		if made != nil {
			kept = st.Offsets[made.ID]
			return nil, nil
		}
		if err = withinQuota("keys", len(st.Keys), 1, registry.MaxKeys); err != nil {
			return nil, err
		}
		made = &registry.Key{Meta: s.newMeta(idem), Tenant: in.Tenant, Role: registry.Role(in.Body.Role), Name: in.Body.Name}
		made.ID, token, made.Hash = auth.NewToken()
		return []registry.Change{{Tenant: in.Tenant, Entity: made.ID, Value: made}}, nil
	}})
	if err != nil {
		return nil, err
	}
	if offset < 0 {
		offset = kept
	}
	out := &answer[key]{Status: http.StatusCreated, ETag: etag(offset), Body: showKey(made, offset)}
	out.Body.Token = token
	return out, nil
}

func (s *Server) listKeys(ctx context.Context, in *ListInput) (*answer[page[key]], error) {
	st, err := s.existing(ctx, in.Tenant)
	if err != nil {
		return nil, err
	}
	return paged(in.PageQuery, st.Keys, nil, func(k *registry.Key) key { return showKey(k, st.Offsets[k.ID]) })
}

func (s *Server) deleteKey(ctx context.Context, in *keyInput) (*empty, error) {
	_, err := s.update(ctx, change{tenant: in.Tenant, action: "key.delete", fn: func(st *registry.TenantState) ([]registry.Change, error) {
		if err := keysWritable(st, in.Tenant); err != nil {
			return nil, err
		}
		if st.Keys[in.Key] == nil {
			return nil, notFound("key")
		}
		if err := checkMatch(in.IfMatch, st, in.Key); err != nil {
			return nil, err
		}
		return []registry.Change{{Tenant: in.Tenant, Entity: in.Key}}, nil
	}})
	return nil, err
}

// keysWritable is writable, but Platform has keys without a tenant record.
func keysWritable(st *registry.TenantState, tenant string) error {
	if tenant == registry.Platform {
		return nil
	}
	return writable(st)
}
