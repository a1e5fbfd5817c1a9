package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

// operator changes endpoints while deliveries are on their way: pauses and
// resumes, edits and rotates, enables what was disabled, makes and deletes.
type operator struct {
	c     *chaos
	done  sync.WaitGroup
	mu    sync.Mutex
	acts  map[string]int
	churn []string // ids of endpoints that were made and deleted
}

// persist asks until the answer is a success or ctx ends, and reports whether
// it was.
func (o *operator) persist(ctx context.Context, a ask, into any) bool {
	a.instance = "control-1"
	for ctx.Err() == nil {
		code, answer, err := o.c.g.ask(a)
		switch {
		case err == nil && code < 300:
			return into == nil || json.Unmarshal(answer, into) == nil
		case err == nil && code != http.StatusServiceUnavailable && (code != http.StatusNotFound || a.method != http.MethodDelete):
			o.c.t.Errorf("%s %s: %d %.300s", a.method, a.path, code, answer)
			return false
		case err == nil && code == http.StatusNotFound:
			return true // an answer before this one was lost
		}
		wait(ctx, 200*time.Millisecond)
	}
	return false
}

func (o *operator) act(ctx context.Context, name string, a ask, into any) bool {
	ok := o.persist(ctx, a, into)
	o.mu.Lock()
	defer o.mu.Unlock()
	if ok {
		o.acts[name]++
	}
	return ok
}

func (o *operator) verb(ctx context.Context, endpoint, verb string) {
	o.act(ctx, verb, ask{method: http.MethodPost, path: "/v1/tenants/acme/endpoints/" + endpoint + "/" + verb}, nil)
}

// start begins everything that an operator does during the time of faults.
func (o *operator) start(ctx context.Context) {
	every := func(d time.Duration, fn func(round int)) {
		o.done.Go(func() {
			for round := 0; ctx.Err() == nil; round++ {
				wait(ctx, d)
				fn(round)
			}
		})
	}
	every(6*time.Second, func(round int) { o.verb(ctx, o.c.id("paused"), []string{"pause", "resume"}[round%2]) })
	every(7*time.Second, func(int) { o.verb(ctx, o.c.id("gone"), "enable") })
	every(3*time.Second, func(round int) {
		path := "/v1/tenants/acme/endpoints/" + o.c.id("edited")
		o.act(ctx, "edit", ask{method: http.MethodPatch, path: path, body: settings{"url": fmt.Sprintf("%s/edited/%d", o.c.url(round), round)}}, nil)
		if round%5 == 4 { // at most three secrets sign at once
			o.act(ctx, "rotate", ask{method: http.MethodPost, path: path + "/rotate-secret", body: settings{"overlap": "0s"}}, nil)
		}
	})
	every(2*time.Second, func(round int) { o.comeAndGo(ctx, round) })
}

// comeAndGo makes an endpoint, pauses each second one, and deletes it while
// records wait for it.
func (o *operator) comeAndGo(ctx context.Context, round int) {
	var got struct {
		ID string `json:"id"`
	}
	name := fmt.Sprintf("churn-%d", round)
	made := o.act(ctx, "create", ask{method: http.MethodPost, path: "/v1/tenants/acme/endpoints", idempotency: uuid.NewString(), body: settings{
		"url": o.c.url(round) + "/" + name, "timeout": "3s", "retry": patient(),
		"subscriptions": []any{map[string]any{"types": []string{typeSome, typeRare}}},
	}}, &got)
	if !made {
		return
	}
	o.mu.Lock()
	o.churn = append(o.churn, got.ID)
	o.mu.Unlock()
	o.c.know(name, got.ID)
	if round%2 == 0 {
		o.verb(ctx, got.ID, "pause")
	}
	wait(ctx, 4*time.Second)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	o.act(ctx, "delete", ask{method: http.MethodDelete, path: "/v1/tenants/acme/endpoints/" + got.ID}, nil)
}

// settle brings everything into its last state: what was paused goes on.
func (o *operator) settle(ctx context.Context) {
	o.done.Wait()
	o.verb(ctx, o.c.id("paused"), "resume")
	o.verb(ctx, o.c.id("gone"), "enable")
}
