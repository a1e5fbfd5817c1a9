package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/signature"
)

const (
	// seenIDs bounds the webhook-ids whose arrivals are counted.
	seenIDs = 10_000
	// maxConns bounds what a receiver serves at once.
	maxConns = 256
	// shownBody bounds what a table shows of a body, in characters.
	shownBody = 100
)

type listenCmd struct {
	connection `embed:""`

	Addr       string        `default:"127.0.0.1:9000" help:"Address to listen on."`
	Secret     []string      `env:"POSTRIDER_WEBHOOK_SECRET" placeholder:"WHSEC" help:"Secrets or public keys (whpk_…) to verify with; any of them may have signed. A request that none signed is answered 401."`
	Scheme     string        `default:"standard" enum:"standard,stripe,github,shopify,slack" help:"How requests are signed that --secret verifies: ${enum}."`
	SecretFrom []string      `placeholder:"EP" help:"Endpoints whose secrets, and how they sign, are read from the gateway."`
	KeysFrom   []string      `placeholder:"EP" help:"Endpoints whose public keys are fetched from the gateway, which needs no API key."`
	Status     int           `default:"200" help:"Status to answer with."`
	Delay      time.Duration `default:"0s" help:"How long to wait before answering."`
	FailRate   float64       `default:"0" help:"Share of requests to answer 503: 0 to 1."`
	FailFirst  int           `default:"0" help:"How many requests of each webhook-id to answer 503 first."`
	MaxBody    byteSize      `default:"4MiB" help:"Largest body; more is answered 413."`
}

// Run receives until ctx ends.
func (c *listenCmd) Run(ctx context.Context, conn *connection, std streams) error {
	if c.Status < 200 || c.Status > 599 || c.FailRate < 0 || c.FailRate > 1 || c.FailFirst < 0 || c.Delay < 0 || c.MaxBody < 1 {
		return errors.New("want --status 200 to 599, --fail-rate 0 to 1, --max-body at least 1, and nothing negative")
	}
	verify, err := c.verifiers(ctx, conn)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(std.err, "Listening on http://%s, signatures are %s.\n", ln.Addr(), verifying(len(verify)))
	r := newReceiver(verify, c.printer(conn.Output, newTerminal(std.out))) // which begins with the table's header
	r.status, r.delay, r.failRate, r.failFirst, r.maxBody = c.Status, c.Delay, c.FailRate, c.FailFirst, int64(c.MaxBody)
	return serve(ctx, ln, r)
}

func verifying(ways int) string {
	if ways == 0 {
		return "not verified: no --secret was given"
	}
	return "verified"
}

func readSecret(ctx context.Context, client *apiClient, path string) (string, error) {
	answer, err := client.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	var found struct {
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return found.Secret, nil
}

// printer shows arrivals, one a line.
func (c *listenCmd) printer(output string, term *terminal) func(arrival) {
	if output == "json" {
		enc := json.NewEncoder(term.out)
		enc.SetEscapeHTML(false)
		return func(a arrival) { _ = enc.Encode(a) } // nobody is left to tell
	}
	row := "%-12s  %-6s  %-30s  %-30s  %-4s  %-22s  %s"
	term.line(row, "TIME", "STATUS", "TYPE", "WEBHOOK-ID", "SEEN", "VERIFIED", "BODY")
	return func(a arrival) {
		colour := green
		if a.Status >= 300 {
			colour = red
		}
		term.line(row, a.Time.Format("15:04:05.000"), term.paint(colour, fmt.Sprintf("%-6d", a.Status)), clip(a.Type, 30),
			clip(a.ID, 30), strconv.Itoa(a.Seen), clip(a.Verified, 22), clip(a.Body, shownBody))
	}
}

// arrival is one request that came in.
type arrival struct {
	Time time.Time `json:"time"`
	Path string    `json:"path"`
	// Type is the event's, as the body or a header names it.
	Type string `json:"type"`
	ID   string `json:"webhook_id"`
	// Seen counts the requests of this webhook-id, this one included.
	Seen int `json:"seen"`
	// Verified is "yes", "no: " and the reason, or "-" without secrets.
	Verified string `json:"verified"`
	Status   int    `json:"status"`
	Body     string `json:"body"`
}

// receiver is a webhook receiver whose failures are chosen. Its fields are set
// before it serves.
type receiver struct {
	verifiers verifiers
	status    int
	delay     time.Duration
	failRate  float64
	failFirst int
	maxBody   int64
	random    func() float64 // 0 up to 1
	now       func() time.Time

	mu    sync.Mutex
	show  func(arrival) // one call at a time
	seen  map[string]int
	order []string // of seen, oldest first
}

func newReceiver(verify verifiers, show func(arrival)) *receiver {
	return &receiver{
		verifiers: verify, status: http.StatusOK, maxBody: 4 << 20, show: show, now: time.Now, seen: map[string]int{},
		random: rand.Float64,
	}
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost && req.Method != http.MethodPut {
		w.Header().Set("Allow", "POST, PUT")
		http.Error(w, "POST or PUT webhooks here", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, r.maxBody))
	a := arrival{Time: r.now(), Path: req.URL.Path, ID: req.Header.Get(signature.HeaderID), Verified: "-", Status: r.status}
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		a.Status = http.StatusRequestEntityTooLarge
	} else if err != nil {
		return // the sender is gone
	}
	shown := r.unpacked(req.Header, body)
	a.Type, a.Body = eventType(req.Header, shown), strings.ToValidUTF8(string(shown), "�")
	if len(r.verifiers) > 0 && a.Status != http.StatusRequestEntityTooLarge {
		a.Verified = "yes"
		if err := r.verifiers.verify(req.Header, body, a.Time); err != nil {
			a.Verified, a.Status = "no: "+err.Error(), http.StatusUnauthorized
		}
	}
	if !wait(req.Context(), r.delay) {
		return
	}
	r.judge(&a)
	w.WriteHeader(a.Status)
}

// unpacked returns a body to show: that of gzip, as far as it is within the bound
// and can be read.
func (r *receiver) unpacked(header http.Header, body []byte) []byte {
	if header.Get("Content-Encoding") != "gzip" {
		return body
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return body
	}
	plain, _ := io.ReadAll(io.LimitReader(z, r.maxBody)) // what can be read is shown
	return plain
}

// judge counts the arrival, decides whether it is to fail, and shows it.
func (r *receiver) judge(a *arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.seen[a.ID]; !known {
		if len(r.order) == seenIDs {
			delete(r.seen, r.order[0])
			r.order = r.order[1:]
		}
		r.order = append(r.order, a.ID)
	}
	r.seen[a.ID]++
	a.Seen = r.seen[a.ID]
	if a.Status == r.status && (a.Seen <= r.failFirst || r.failRate > 0 && r.random() < r.failRate) {
		a.Status = http.StatusServiceUnavailable
	}
	r.show(*a)
}

// eventType is the event's type: that of the default body, or of a CloudEvent.
func eventType(header http.Header, body []byte) string {
	if ce := header.Get("Ce-Type"); ce != "" {
		return ce
	}
	var envelope struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(body, &envelope) != nil {
		return ""
	}
	return envelope.Type
}

// wait reports whether the time passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// serve answers the listener's connections until ctx ends, and owns it.
func serve(ctx context.Context, ln net.Listener, handler http.Handler) error {
	slots := make(chan struct{}, maxConns)
	bounded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			handler.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
	// Requests end with ctx: one that is delayed must not hold up the end.
	server := &http.Server{
		Handler: bounded, ReadTimeout: 30 * time.Second, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 64 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(drain) != nil {
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}
