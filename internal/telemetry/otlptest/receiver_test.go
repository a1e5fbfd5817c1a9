package otlptest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/postrider/postrider/internal/telemetry/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReceiverDecodesSpans(t *testing.T) {
	receiver := otlptest.New()
	defer receiver.Close()
	body := request(t, &tracepb.Span{
		Name: "attempt", Kind: tracepb.Span_SPAN_KIND_CLIENT,
		TraceId: []byte{1}, SpanId: []byte{2}, ParentSpanId: []byte{3},
		StartTimeUnixNano: 1e9, EndTimeUnixNano: 2e9,
		Attributes: []*commonpb.KeyValue{
			{Key: "n", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 7}}},
			{Key: "list", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{
				ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{
					{Value: &commonpb.AnyValue_StringValue{StringValue: "a"}},
					{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}},
					{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: 0.5}},
				}},
			}}},
		},
		Links:  []*tracepb.Span_Link{{TraceId: []byte{4}, SpanId: []byte{5}}},
		Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "exhausted"},
	})
	want := otlptest.Span{
		Name: "attempt", Kind: "client", TraceID: "01", SpanID: "02", ParentID: "03",
		Links: []otlptest.Link{{TraceID: "04", SpanID: "05"}},
		Start: time.Unix(1, 0), End: time.Unix(2, 0),
		Attributes: map[string]any{"n": int64(7), "list": []any{"a", true, 0.5}},
		Resource:   map[string]any{}, Failed: true, Message: "exhausted",
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // plain, then zipped
		if code := post(t, receiver.URL, body, nil); code != http.StatusOK {
			t.Fatalf("code %d", code)
		}
		if code := post(t, receiver.URL, zipped.Bytes(), http.Header{"Content-Encoding": {"gzip"}}); code != http.StatusOK {
			t.Fatalf("zipped: code %d", code)
		}
	}
	if diff := cmp.Diff([]otlptest.Span{want, want, want, want}, receiver.Spans()); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

func TestReceiverRefuses(t *testing.T) {
	receiver := otlptest.New()
	defer receiver.Close()
	full := make([]*tracepb.Span, 1<<16)
	for i := range full {
		full[i] = &tracepb.Span{}
	}
	for _, tc := range []struct {
		name   string
		body   []byte
		header http.Header
		want   int
	}{
		{"JSON", []byte("{}"), http.Header{"Content-Type": {"application/json"}}, http.StatusBadRequest},
		{"no protobuf", []byte("\xff"), nil, http.StatusBadRequest},
		{"no gzip", []byte("x"), http.Header{"Content-Encoding": {"gzip"}}, http.StatusBadRequest},
		{"unknown encoding", nil, http.Header{"Content-Encoding": {"br"}}, http.StatusBadRequest},
		{"as much as it keeps", request(t, full...), nil, http.StatusOK},
		{"one more", request(t, &tracepb.Span{}), nil, http.StatusServiceUnavailable},
	} {
		if got := post(t, receiver.URL, tc.body, tc.header); got != tc.want {
			t.Errorf("%s: code %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestWait(t *testing.T) {
	receiver := otlptest.New()
	defer receiver.Close()
	one := func(spans []otlptest.Span) bool { return len(spans) == 1 }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := receiver.Wait(ended, one); err == nil {
		t.Error("Wait found a span that nobody sent")
	}
	sent := make(chan int, 1)
	body := request(t, &tracepb.Span{Name: "s"})
	go func() { sent <- post(t, receiver.URL, body, nil) }()
	spans, err := receiver.Wait(t.Context(), one)
	if err != nil || len(spans) != 1 || spans[0].Name != "s" {
		t.Errorf("Wait = %v, %v", spans, err)
	}
	if code := <-sent; code != http.StatusOK {
		t.Errorf("code %d", code)
	}
}

func TestTree(t *testing.T) {
	span := func(name, parent string, second int64) otlptest.Span {
		return otlptest.Span{TraceID: "t", SpanID: name, Name: name, ParentID: parent, Start: time.Unix(second, 0)}
	}
	spans := []otlptest.Span{
		span("attempt 2", "fanout", 4), span("attempt 1", "fanout", 3), span("fanout", "ingest", 2),
		span("ingest", "the producer's", 1), span("orphan", "gone", 5),
		span("ring a", "ring b", 6), span("ring b", "ring a", 6),
		{TraceID: "other", SpanID: "x", Name: "x"},
	}
	want := "ingest\n  fanout\n    attempt 1\n    attempt 2\norphan\n"
	if diff := cmp.Diff(want, otlptest.Tree(spans, "t")); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func request(t *testing.T, spans ...*tracepb.Span) []byte {
	t.Helper()
	body, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{
		ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func post(t *testing.T, url string, body []byte, header http.Header) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/traces", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	maps.Copy(req.Header, header)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	return answer.StatusCode
}
