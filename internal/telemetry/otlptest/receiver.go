// Package otlptest receives OTLP over HTTP, for tests that assert what a
// process exports.
//
// In: protobuf requests, plain or gzip, on /v1/traces, /v1/metrics and /v1/logs
// of Receiver.URL. Out: the spans, metric names and log bodies that arrived, in
// the order of arrival. It keeps at most 65,536 of each and answers 503 after
// that, so a test that runs away does not take the machine with it.
package otlptest

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"

	logspb "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	metricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	maxItems = 1 << 16
	maxBody  = 16 << 20 // bytes, compressed and decompressed alike
)

// Receiver is an OTLP/HTTP collector on a free port of 127.0.0.1. Its methods
// may be called concurrently.
type Receiver struct {
	// URL is the value for OTEL_EXPORTER_OTLP_ENDPOINT.
	URL string

	server  *httptest.Server
	mu      sync.Mutex
	spans   []Span
	metrics []string
	logs    []string
	changed chan struct{} // closed and replaced with every request taken
}

// New starts a Receiver, which the caller ends with Close.
func New() *Receiver {
	r := &Receiver{changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", receive(r, r.takeSpans))
	mux.HandleFunc("POST /v1/metrics", receive(r, r.takeMetrics))
	mux.HandleFunc("POST /v1/logs", receive(r, r.takeLogs))
	r.server = httptest.NewServer(mux)
	r.URL = r.server.URL
	return r
}

// Close stops listening and waits for requests in flight. What arrived stays
// readable.
func (r *Receiver) Close() { r.server.Close() }

// Spans returns the spans that arrived so far.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.spans)
}

// Metrics returns the names of the metrics that arrived so far, each export
// naming its metrics again.
func (r *Receiver) Metrics() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}

// Logs returns the bodies of the log records that arrived so far.
func (r *Receiver) Logs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.logs)
}

// Wait returns the spans as soon as enough says so, or those that arrived with
// an error when ctx ends.
func (r *Receiver) Wait(ctx context.Context, enough func([]Span) bool) ([]Span, error) {
	for {
		r.mu.Lock()
		spans, changed := slices.Clone(r.spans), r.changed
		r.mu.Unlock()
		if enough(spans) {
			return spans, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return spans, fmt.Errorf("wait for spans, %d arrived: %w", len(spans), context.Cause(ctx))
		}
	}
}

// receive decodes a request into a new M and hands it to take, which runs under
// the lock and reports whether there was room.
func receive[M any, P interface {
	*M
	proto.Message
}](r *Receiver, take func(P) bool,
) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, err := readBody(w, req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var message P = new(M)
		if err := proto.Unmarshal(body, message); err != nil {
			http.Error(w, fmt.Sprintf("decode protobuf: %v", err), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !take(message) {
			http.Error(w, "the receiver is full", http.StatusServiceUnavailable)
			return
		}
		close(r.changed)
		r.changed = make(chan struct{})
		w.Header().Set("Content-Type", "application/x-protobuf") // an empty body is an empty message
	}
}

func readBody(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	if kind := req.Header.Get("Content-Type"); kind != "application/x-protobuf" {
		return nil, fmt.Errorf("content type %q is not application/x-protobuf", kind)
	}
	var body io.Reader = http.MaxBytesReader(w, req.Body, maxBody)
	switch encoding := req.Header.Get("Content-Encoding"); encoding {
	case "":
	case "gzip":
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		body = unzipped
	default:
		return nil, fmt.Errorf("content encoding %q is not gzip", encoding)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if len(data) > maxBody {
		return nil, fmt.Errorf("body is longer than %d bytes", maxBody)
	}
	return data, nil
}

func (r *Receiver) takeSpans(request *tracepb.ExportTraceServiceRequest) bool {
	var spans []Span
	for _, resource := range request.GetResourceSpans() {
		attrs := attributes(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				spans = append(spans, newSpan(attrs, span))
			}
		}
	}
	return room(&r.spans, spans)
}

func (r *Receiver) takeMetrics(request *metricspb.ExportMetricsServiceRequest) bool {
	var names []string
	for _, resource := range request.GetResourceMetrics() {
		for _, scope := range resource.GetScopeMetrics() {
			for _, metric := range scope.GetMetrics() {
				names = append(names, metric.GetName())
			}
		}
	}
	return room(&r.metrics, names)
}

func (r *Receiver) takeLogs(request *logspb.ExportLogsServiceRequest) bool {
	var bodies []string
	for _, resource := range request.GetResourceLogs() {
		for _, scope := range resource.GetScopeLogs() {
			for _, line := range scope.GetLogRecords() {
				bodies = append(bodies, line.GetBody().GetStringValue())
			}
		}
	}
	return room(&r.logs, bodies)
}

// room appends all of items, or none and reports false.
func room[T any](kept *[]T, items []T) bool {
	if len(*kept)+len(items) > maxItems {
		return false
	}
	*kept = append(*kept, items...)
	return true
}
