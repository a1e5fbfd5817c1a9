package control

import (
	"encoding/base64"
	"net/http"
	"slices"
)

// PageQuery asks for one page of a list.
type PageQuery struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"250" default:"50" doc:"How many to answer at most."`
	Cursor string `query:"cursor" maxLength:"256" doc:"next_cursor of the page before; nothing for the first page."`
}

// page is one page of a list. Lists are in the order of their ids, which is that
// of creation (tenants: alphabetic). An entity that stays is on exactly one page,
// whatever is made or deleted meanwhile.
type page[T any] struct {
	Data       []T    `json:"data" nullable:"false"`
	NextCursor string `json:"next_cursor,omitempty" doc:"Ask with it for the next page; absent on the last one."`
}

// paged picks a page of the entities that keep lets through.
func paged[E, T any](q PageQuery, entities map[string]E, keep func(E) bool, show func(E) T) (*answer[page[T]], error) {
	after, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil || len(q.Cursor) > 0 && len(after) == 0 {
		return nil, refuse(http.StatusUnprocessableEntity, codeInvalidCursor, "query parameter cursor: use next_cursor of the page before as it is")
	}
	ids := make([]string, 0, len(entities))
	for id, e := range entities {
		if id > string(after) && (keep == nil || keep(e)) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	out := page[T]{Data: []T{}}
	for _, id := range ids[:min(len(ids), q.Limit)] {
		out.Data = append(out.Data, show(entities[id]))
	}
	if len(ids) > q.Limit {
		out.NextCursor = base64.RawURLEncoding.EncodeToString([]byte(ids[q.Limit-1]))
	}
	return &answer[page[T]]{Status: http.StatusOK, Body: out}, nil
}

// answer is an entity, or a page of them, with its headers.
type answer[T any] struct {
	Status   int
	ETag     string `header:"ETag"` //nolint:tagliatelle // the header's name
	Location string `header:"Location"`
	Body     T
}

// empty is an answer without a body.
type empty struct{}
