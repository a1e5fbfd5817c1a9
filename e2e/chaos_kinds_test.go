package e2e

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// kind is a kind of endpoint in the chaos test. A line here is all it takes to
// have one more.
type kind struct {
	name     string
	types    []string
	settings settings
	answer   func(w http.ResponseWriter, r *http.Request) int
	needs    string // a member of the API's EndpointSettings; without it the kind is left out
	// arrives: every delivery must have been delivered in the end.
	arrives bool
	// ordered: first successes must come in the order of the log, for each key.
	ordered bool
	// optional: an event may become no delivery for it, if a decision says that
	// it is disabled.
	optional bool
	state    string // a verb after it is made
}

// Types of the load.
const (
	typeOften, typeMore, typeSome = "chaos.often", "chaos.more", "chaos.some"
	typeRare                      = "chaos.rare"
	typeNobodys                   = "chaos.nobodys"
	typeFiltered                  = "chaos.filtered" // half of them pass the filter
	typeDoomed                    = "chaos.doomed"   // of the tenant that is deleted
)

// patient is a schedule that outlasts every fault.
func patient() map[string]any {
	steps := []string{"1s", "1s", "2s", "2s", "4s", "4s", "4s", "4s", "4s", "8s", "8s", "8s", "8s", "8s", "8s", "16s", "16s", "16s", "16s", "32s"}
	return map[string]any{"schedule": steps}
}

// briefBreaker opens soon and looks again soon.
func briefBreaker() map[string]any {
	return map[string]any{"failures": 10, "probe_after": "1s", "max_probe_after": "4s"}
}

// kinds is the table of endpoints.
func kinds() []kind {
	short := map[string]any{"schedule": []string{"1s", "1s"}}
	return []kind{
		{name: "healthy", types: []string{typeOften, typeMore, typeSome}, arrives: true},
		{name: "filtering", types: []string{typeFiltered}, arrives: true},
		{name: "flaky", types: []string{typeOften}, answer: each(5, status(500)), arrives: true},
		{name: "recovering", types: []string{typeMore}, answer: inTurn(8*time.Second, status(200), status(500)), arrives: true},
		{name: "hanging", types: []string{typeRare}, settings: settings{"retry": short, "timeout": "1s"}, answer: hang},
		{name: "refusing", types: []string{typeRare}, settings: settings{"retry": short}, answer: status(500)},
		{name: "busy", types: []string{typeMore}, answer: each(20, retryAfterSecond), arrives: true},
		{name: "gone", types: []string{typeSome}, answer: each(60, status(http.StatusGone)), optional: true},
		{name: "paused", types: []string{typeSome}, arrives: true},
		{name: "parked", types: []string{typeRare}, state: "pause"},
		{name: "later", types: []string{typeRare}, settings: settings{"retry": map[string]any{"schedule": []string{"1h"}}}, answer: status(500)},
		{name: "expiring", types: []string{typeRare}, settings: settings{"retry": map[string]any{"schedule": []string{"1s"}, "max_age": "15s"}}, state: "pause"},
		{name: "edited", types: []string{typeOften}, answer: each(7, status(502)), arrives: true},
		{name: "slow", types: []string{typeMore}, settings: settings{"max_in_flight": 16}, answer: late(300 * time.Millisecond), arrives: true},
		{
			name: "limited", types: []string{typeOften}, needs: "rate_limit", arrives: true,
			settings: settings{"rate_limit": map[string]any{"per_second": 40, "burst": 5}},
		},
		{
			name: "ordered", types: []string{typeSome}, needs: "ordered", arrives: true, ordered: true, answer: each(9, status(500)),
			settings: settings{"ordered": true},
		},
		{
			name: "skipping", types: []string{typeSome}, needs: "ordered", ordered: true, answer: each(4, status(500)),
			settings: settings{"ordered": true, "on_exhausted": "skip", "retry": map[string]any{"schedule": []string{"1s"}}},
		},
		{
			name: "blocking", types: []string{typeRare}, needs: "ordered", arrives: true, ordered: true, answer: each(6, status(500)),
			settings: settings{"ordered": true, "on_exhausted": "block", "retry": map[string]any{"schedule": []string{"1s"}}},
		},
		{name: "sharded", types: []string{typeOften}, needs: "shards", settings: settings{"shards": 4}, arrives: true},
	}
}

// answers of receivers

func status(code int) func(http.ResponseWriter, *http.Request) int {
	return func(http.ResponseWriter, *http.Request) int { return code }
}

// each answers each n-th request in a way of its own.
func each(n int64, other func(http.ResponseWriter, *http.Request) int) func(http.ResponseWriter, *http.Request) int {
	var count atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) int {
		if count.Add(1)%n == 0 {
			return other(w, r)
		}
		return http.StatusOK
	}
}

// inTurn answers in the first way for a while, then in the second, and so on.
func inTurn(d time.Duration, first, second func(http.ResponseWriter, *http.Request) int) func(http.ResponseWriter, *http.Request) int {
	begin := time.Now()
	return func(w http.ResponseWriter, r *http.Request) int {
		if time.Since(begin)/d%2 == 0 {
			return first(w, r)
		}
		return second(w, r)
	}
}

func retryAfterSecond(w http.ResponseWriter, _ *http.Request) int {
	w.Header().Set("Retry-After", "1")
	return http.StatusTooManyRequests
}

func hang(_ http.ResponseWriter, r *http.Request) int {
	wait(r.Context(), 20*time.Second)
	return http.StatusOK
}

func late(d time.Duration) func(http.ResponseWriter, *http.Request) int {
	return func(_ http.ResponseWriter, r *http.Request) int {
		wait(r.Context(), d)
		return http.StatusOK
	}
}

// target is an endpoint in the chaos test.
type target struct {
	kind
	id string
}

// post is one request at a receiver.
type post struct {
	name, event, attempt string
	key                  string // of the event, for order
	at, answered         time.Time
	status               int
}

// receivers is where all endpoints of the chaos test lead to: the first part of
// the path names the endpoint.
type receivers struct {
	mu     sync.Mutex
	posts  []post
	answer map[string]func(http.ResponseWriter, *http.Request) int
}

func (r *receivers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var body bytes.Buffer
	if _, err := body.ReadFrom(req.Body); err != nil {
		return // the sender was killed, or the link cut, in the middle
	}
	name, _, _ := strings.Cut(req.URL.Path[1:], "/")
	p := post{name: name, event: req.Header.Get("Webhook-Id"), attempt: req.Header.Get("Postrider-Attempt"), at: time.Now(), status: http.StatusOK}
	var doc struct {
		Data struct {
			Key string `json:"key"`
		} `json:"data"`
	}
	if json.Unmarshal(body.Bytes(), &doc) == nil {
		p.key = doc.Data.Key
	}
	r.mu.Lock()
	answer := r.answer[name]
	r.mu.Unlock()
	if answer != nil {
		p.status = answer(w, req)
	}
	p.answered = time.Now()
	r.mu.Lock()
	r.posts = append(r.posts, p)
	r.mu.Unlock()
	w.WriteHeader(p.status)
}

// all returns the requests so far, in the order of their answers.
func (r *receivers) all() []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]post(nil), r.posts...)
}
