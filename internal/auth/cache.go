package auth

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/postrider/postrider/internal/registry"
)

// cache holds decoded entities. What does not exist is not in it.
type cache[E any] struct {
	cfg    Config
	decode func([]byte) (*E, error)
	known  *otter.Cache[registry.Ref, entry[E]]
	flight singleflight.Group
}

type entry[E any] struct {
	value *E
	// at is when the view was asked.
	at time.Time
	// marker is how far the view had read the registry then.
	marker registry.Marker
}

func newCache[E any](cfg Config, decode func([]byte) (*E, error)) *cache[E] {
	return &cache[E]{
		cfg: cfg, decode: decode,
		// Maintenance runs in the caller: no goroutine outlives a call.
		known: otter.Must(&otter.Options[registry.Ref, entry[E]]{
			MaximumSize: cfg.Entries,
			Executor:    func(fn func()) { fn() },
		}),
	}
}

// lookup returns the entity, nil if it does not exist, or ErrUnavailable.
func (c *cache[E]) lookup(ctx context.Context, ref registry.Ref) (*E, error) {
	if e, ok := c.known.GetIfPresent(ref); ok && c.cfg.Clock().Sub(e.at) <= c.cfg.Fresh {
		return e.value, nil
	}
	// What is kept must not be a piece of the caller's request buffer.
	ref = registry.Ref{Tenant: strings.Clone(ref.Tenant), Entity: strings.Clone(ref.Entity)}
	// Shared by all who ask, so it must not end with the one who asked first.
	answer := c.flight.DoChan(ref.Tenant+"/"+ref.Entity, func() (any, error) {
		ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Timeout)
		defer cancel()
		return c.ask(ask, ref)
	})
	select {
	case r := <-answer:
		value, _ := r.Val.(*E)
		return value, r.Err
	case <-ctx.Done():
		return nil, errors.Join(ErrUnavailable, ctx.Err())
	}
}

func (c *cache[E]) ask(ctx context.Context, ref registry.Ref) (*E, error) {
	old, cached := c.known.GetIfPresent(ref)
	at := c.cfg.Clock()
	found, err := c.fetch(ctx, ref)
	switch {
	case err != nil:
	case !found.Complete:
		err = errors.New("the view is being rebuilt")
	case cached && found.Next < old.marker.Next:
		err = errors.New("the view is older than before")
	case !found.OK:
		c.known.Invalidate(ref)
		return nil, nil
	default:
		var value *E
		if value, err = c.decode(found.Value); err == nil {
			c.known.Set(ref, entry[E]{value: value, at: at, marker: found.Marker})
			return value, nil
		}
	}
	if cached && at.Sub(old.at) <= c.cfg.Stale {
		return old.value, nil
	}
	return nil, errors.Join(ErrUnavailable, err)
}

func (c *cache[E]) fetch(ctx context.Context, ref registry.Ref) (registry.Found, error) {
	all, err := c.cfg.View.Entities(ctx, []registry.Ref{ref})
	if err != nil {
		return registry.Found{}, err
	}
	if len(all) != 1 {
		return registry.Found{}, errors.New("the view answered another question")
	}
	return all[0], nil
}
