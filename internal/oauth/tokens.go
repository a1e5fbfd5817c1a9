package oauth

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/postrider/postrider/internal/egress"
)

const (
	// failureCounts is how long a failure stands for further ones.
	failureCounts = 5 * time.Second
	// maxEarly is how long before its end a token is refreshed at most; short
	// ones are after nine tenths of their life.
	maxEarly = time.Minute
	// slack is what the last moments of a token are not relied on for.
	slack = 2 * time.Second
	// defaultClients bounds the clients whose tokens are kept.
	defaultClients = 20_000
)

// Tokens keeps the tokens of many clients, those used last.
type Tokens struct {
	send    Sender
	sources *otter.Cache[string, *source]
}

// New returns an empty Tokens for at most so many clients; 0 means 20,000.
func New(send Sender, clients int) (*Tokens, error) {
	if clients <= 0 {
		clients = defaultClients
	}
	sources, err := otter.New(&otter.Options[string, *source]{MaximumSize: clients})
	if err != nil {
		return nil, fmt.Errorf("make the cache of tokens: %w", err)
	}
	return &Tokens{send: send, sources: sources}, nil
}

// source is the token of one client.
type source struct {
	mu       sync.Mutex
	token    token
	fetching chan struct{} // closed when the request under way ends; nil: none is
	failed   *Error
	failedAt time.Time
	// spent says that a token was dropped because a receiver refused it, and that
	// no token was taken since.
	spent bool
}

func (t *Tokens) source(key string) *source {
	s, _ := t.sources.ComputeIfAbsent(key, func() (*source, bool) { return &source{}, false })
	return s
}

// Token returns a token for the client that is known under the key, from memory
// or from its token endpoint. The key must change with the client.
func (t *Tokens) Token(ctx context.Context, key string, c *Client) (string, *Error) {
	s := t.source(key)
	whole := remaining(ctx)
	for {
		value, wait, err := s.look(time.Now())
		switch {
		case err != nil:
			return "", err
		case value != "":
			return value, nil
		case wait == nil:
			return s.refresh(ctx, t.send, c, whole)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			timeout := &egress.Error{Class: egress.ClassTimeout, Timeout: true}
			return "", &Error{Exchange: timeout, Detail: "no token in time"}
		}
	}
}

// look returns a token that can be used, the failure that counts, or a channel to
// wait on. Without any of them the caller is the one to refresh.
func (s *source) look(now time.Time) (value string, wait chan struct{}, failed *Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	recent := s.failed != nil && now.Sub(s.failedAt) < failureCounts
	usable := s.token.value != "" && now.Before(s.token.until.Add(-min(slack, s.life()/10)))
	early := usable && now.After(s.token.until.Add(-min(maxEarly, s.life()/10)))
	switch {
	case usable && (!early || s.fetching != nil || recent):
		return s.token.value, nil, nil
	case recent:
		return "", nil, s.failed
	case s.fetching != nil:
		return "", s.fetching, nil
	}
	s.fetching = make(chan struct{})
	return "", nil, nil
}

func (s *source) life() time.Duration { return s.token.until.Sub(s.token.from) }

// refresh fetches a token and lets the others go on; whole is the time that the
// caller came with. If that fails while the old token is valid, the old one is
// returned.
func (s *source) refresh(ctx context.Context, send Sender, c *Client, whole time.Duration) (string, *Error) {
	left := remaining(ctx)
	fresh, failed := fetch(ctx, send, c, s.limit(left))
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.fetching)
	s.fetching = nil
	if failed == nil {
		s.token, s.failed = fresh, nil
		return fresh.value, nil
	}
	if failed.counts(left < whole/2) {
		s.failed, s.failedAt = failed, time.Now()
	}
	if s.token.value != "" && time.Now().Before(s.token.until) {
		return s.token.value, nil
	}
	return "", failed
}

// counts reports whether a failure stands for further callers. That a caller gave
// up, that this machine is out of files or ports, or that a late caller, one that
// had waited most of its time away, ran out of the rest, says nothing about the
// token endpoint.
func (e *Error) counts(late bool) bool {
	switch x := e.Exchange; {
	case x == nil:
		return true
	case x.Class == egress.ClassCanceled, x.Class == egress.ClassLocal:
		return false
	default:
		return !x.Timeout || !late
	}
}

// remaining returns how long a fetch within ctx may take.
func remaining(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return fetchTimeout
	}
	return min(time.Until(deadline), fetchTimeout)
}

// limit returns how much of the caller's time a fetch may take. While the old token
// is valid, half of it is left for using it, should the token endpoint not answer.
func (s *source) limit(left time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.value != "" && time.Now().Before(s.token.until) {
		left /= 2
	}
	return left
}

// Refused drops a token that a receiver answered with 401, unless the one before
// it was dropped, too, and none was taken since: then the token is not to blame.
func (t *Tokens) Refused(key, value string) {
	s := t.source(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.value == value && !s.spent {
		s.token, s.spent = token{}, true
	}
}

// Taken notes that a receiver took a token.
func (t *Tokens) Taken(key, value string) {
	s := t.source(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token.value == value {
		s.spent = false
	}
}
