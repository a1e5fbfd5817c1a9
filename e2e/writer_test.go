package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

// hasty is a client that soon asks again: for load on processes that are
// stopped and cut.
var hasty = &http.Client{
	Timeout:   5 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 16},
}

// ask is one request to a process.
type ask struct {
	instance, method, path string
	token                  string // "" means the admin key
	idempotency            string
	body                   any
}

// ask sends a request and returns the status and the answer.
func (g *gateway) ask(a ask) (int, []byte, error) {
	doc, err := json.Marshal(a.body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(a.method, "http://"+g.proc(a.instance).listen+a.path, bytes.NewReader(doc))
	if err != nil {
		return 0, nil, err
	}
	if a.token == "" {
		a.token = adminKey
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if a.idempotency != "" {
		req.Header.Set("Idempotency-Key", a.idempotency)
	}
	if a.body == nil {
		req.Body = http.NoBody
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := hasty.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// pair is an event and an endpoint that must get it.
type pair struct{ event, endpoint string }

// writer goes on writing to control, as careful clients do: it makes endpoints,
// each with a subscription to a type of its own, and once one is acknowledged
// changes it and sends an event of that type. What is refused for now (503, no
// answer) is asked again under the same Idempotency-Key; any other refusal
// fails the test.
type writer struct {
	g             *gateway
	instance, url string
	stop          chan struct{}
	done          sync.WaitGroup
	mu            sync.Mutex
	pairs         []pair
}

// writeControl starts a writer whose endpoints are at url.
func (g *gateway) writeControl(instance, url string) *writer {
	w := &writer{g: g, instance: instance, url: url, stop: make(chan struct{})}
	for range 3 {
		w.done.Go(w.write)
	}
	return w
}

func (w *writer) write() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		typ := "new." + uuid.NewString()
		var ep, event struct {
			ID string `json:"id"`
		}
		made := w.persist(ask{
			instance: w.instance, method: "POST", path: "/v1/tenants/acme/endpoints", idempotency: uuid.NewString(),
			body: settings{"url": w.url, "subscriptions": []any{map[string]any{"types": []string{typ}}}},
		}, &ep)
		if !made {
			return
		}
		sent := w.persist(ask{
			instance: "ingest-1", method: "POST", path: "/v1/events",
			body: settings{"id": uuid.NewString(), "source": "/writer", "type": typ, "tenant": "acme", "data": 1},
		}, &event)
		if !sent {
			return
		}
		w.mu.Lock()
		w.pairs = append(w.pairs, pair{event.ID, ep.ID})
		w.mu.Unlock()
		w.persist(ask{
			instance: w.instance, method: "PATCH", path: "/v1/tenants/acme/endpoints/" + ep.ID,
			body: settings{"description": typ},
		}, nil)
	}
}

// persist asks until the answer is a success; false if the writer was stopped
// for a while or the request is wrong.
func (w *writer) persist(a ask, into any) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var over <-chan time.Time
	stop := w.stop
	for {
		status, answer, err := w.g.ask(a)
		if err == nil && status < 300 {
			return into == nil || json.Unmarshal(answer, into) == nil
		}
		if err == nil && status != http.StatusServiceUnavailable {
			w.g.t.Errorf("%s %s: %d: %.500s", a.method, a.path, status, answer)
			return false
		}
		select {
		case <-stop:
			stop, over = nil, time.After(20*time.Second)
		case <-over:
			return false
		case <-tick.C:
		}
	}
}

// end stops the writer and returns what must have arrived.
func (w *writer) end() []pair {
	close(w.stop)
	w.done.Wait()
	return w.pairs
}

// key makes an API key and returns its token.
func (g *gateway) key(role string) string {
	g.t.Helper()
	var got struct {
		Token string `json:"token"`
	}
	g.insist("POST", "/v1/tenants/acme/keys", map[string]any{"role": role}, &got)
	return got.Token
}

// verb is pause, resume, disable or enable of an endpoint.
func (g *gateway) verb(endpoint, verb string) {
	g.t.Helper()
	g.insist("POST", "/v1/tenants/acme/endpoints/"+endpoint+"/"+verb, nil, nil)
}

// arrived waits until each pair's event has been accepted by the sink.
func (s *sink) arrived(t *testing.T, pairs []pair) {
	t.Helper()
	events := eventsOf(pairs)
	eventually(t, time.Minute, fmt.Sprintf("all %d events of new endpoints arrived", len(events)), func() bool {
		return len(s.missing(events)) == 0
	})
}
