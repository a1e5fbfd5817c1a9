package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/postrider/postrider/internal/telemetry"
	"github.com/postrider/postrider/internal/telemetry/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet keeps a developer's own OTEL_* settings out of a test.
func quiet(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if key, value, _ := strings.Cut(pair, "="); strings.HasPrefix(key, "OTEL_") {
			t.Setenv(key, value) // restores it after the test
			if err := os.Unsetenv(key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func setup(t *testing.T, cfg telemetry.Config) *telemetry.Telemetry {
	t.Helper()
	if cfg.Log.Output == nil {
		cfg.Log.Output = t.Output()
	}
	tel, err := telemetry.Setup(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tel
}

// The recipe of the manual: one variable, and spans arrive at the collector.
func TestSpansArriveWhenAnEndpointIsSet(t *testing.T) {
	quiet(t)
	collector := otlptest.New()
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel := setup(t, telemetry.Config{Instance: "deliver-0", Role: "deliver", Version: "1.2.3", Getenv: os.Getenv})

	tracer := tel.Tracer("test")
	ctx, event := tracer.Start(t.Context(), "ingest", trace.WithSpanKind(trace.SpanKindServer))
	header := telemetry.Traceparent(event.SpanContext())
	event.End()
	ctx = trace.ContextWithRemoteSpanContext(ctx, telemetry.SpanContextFrom(header, ""))
	_, attempt := tracer.Start(ctx, "attempt", trace.WithAttributes(telemetry.EndpointKey.String("ep_1")))
	attempt.End()
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	spans := collector.Spans()
	want := "ingest\n  attempt\n"
	if diff := cmp.Diff(want, otlptest.Tree(spans, event.SpanContext().TraceID().String())); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	i := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Name == "attempt" })
	if i < 0 {
		t.Fatal("no span attempt arrived")
	}
	if diff := cmp.Diff(map[string]any{"postrider.endpoint_id": "ep_1"}, spans[i].Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	for key, want := range map[string]string{
		"service.name": "postrider", "service.instance.id": "deliver-0",
		"service.version": "1.2.3", "postrider.role": "deliver",
	} {
		if got := spans[i].Resource[key]; got != want {
			t.Errorf("resource %s = %v, want %s", key, got, want)
		}
	}
}

func TestServiceNameComesFromConfigOrEnvironment(t *testing.T) {
	for _, tc := range []struct{ config, env, want string }{
		{"", "", "postrider"},
		{"gateway", "", "gateway"},
		{"gateway", "from-env", "from-env"},
	} {
		t.Run(tc.want, func(t *testing.T) {
			quiet(t)
			t.Setenv("OTEL_SERVICE_NAME", tc.env)
			tel := setup(t, telemetry.Config{Service: tc.config})
			if body := scrape(tel); !strings.Contains(body, `service_name="`+tc.want+`"`) {
				t.Errorf("target_info does not name %s:\n%s", tc.want, body)
			}
		})
	}
}

func TestTracingIsOffUntilAskedFor(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  map[string]string
		want bool
	}{
		{"nothing set", nil, false},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true},
		{"traces endpoint", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, true},
		{"exporter", map[string]string{"OTEL_TRACES_EXPORTER": "console"}, true},
		{"none wins over the endpoint", map[string]string{
			"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
		}, false},
		{"disabled", map[string]string{
			"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
		}, false},
		{"metrics only", map[string]string{"OTEL_METRICS_EXPORTER": "console"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			quiet(t)
			for key, value := range tc.env {
				t.Setenv(key, value)
			}
			tel := setup(t, telemetry.Config{Getenv: os.Getenv})
			if got := tel.Tracing(); got != tc.want {
				t.Errorf("Tracing() = %v, want %v", got, tc.want)
			}
			_, span := tel.Tracer("test").Start(t.Context(), "s") // never ended: nothing to send
			if got := span.IsRecording(); got != tc.want {
				t.Errorf("span records: %v, want %v", got, tc.want)
			}
		})
	}
}

// The variables that autoexport reads itself must not switch tracing on where
// the process gave no Getenv.
func TestNoGetenvExportsNothing(t *testing.T) {
	quiet(t)
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	if setup(t, telemetry.Config{}).Tracing() {
		t.Error("tracing is on without Getenv")
	}
}

func TestUnknownExporterIsAnError(t *testing.T) {
	for _, key := range []string{"OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"} {
		t.Run(key, func(t *testing.T) {
			quiet(t)
			t.Setenv(key, "carrier-pigeon")
			_, err := telemetry.Setup(t.Context(), telemetry.Config{
				Log: telemetry.LogConfig{Output: t.Output()}, Getenv: os.Getenv,
			})
			if err == nil {
				t.Error("Setup took an unknown exporter")
			}
		})
	}
}

func TestTraceContextPassesThroughWithTracingOff(t *testing.T) {
	tel := setup(t, telemetry.Config{})
	const header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := trace.ContextWithRemoteSpanContext(t.Context(), telemetry.SpanContextFrom(header, ""))
	_, span := tel.Tracer("test").Start(ctx, "fanout")
	if got := telemetry.Traceparent(span.SpanContext()); got != header {
		t.Errorf("traceparent = %q, want the producer's %q", got, header)
	}
}

func TestMetricsAndLogsAreExportedWhenAskedFor(t *testing.T) {
	quiet(t)
	collector := otlptest.New()
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	for _, key := range []string{"OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"} {
		t.Setenv(key, "otlp")
	}
	tel := setup(t, telemetry.Config{Getenv: os.Getenv})
	count(t, tel, t.Context())
	tel.Logger().InfoContext(t.Context(), "endpoint disabled")
	tel.Logger().DebugContext(t.Context(), "below the level")
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := collector.Metrics(); !slices.Contains(got, "postrider.test.events") {
		t.Errorf("metrics that arrived: %q", got)
	}
	if diff := cmp.Diff([]string{"endpoint disabled"}, collector.Logs()); diff != "" {
		t.Errorf("logs (-want +got):\n%s", diff)
	}
}

func TestMetricsAreNotExportedByAnEndpointAlone(t *testing.T) {
	quiet(t)
	collector := otlptest.New()
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel := setup(t, telemetry.Config{Getenv: os.Getenv})
	count(t, tel, t.Context())
	if err := tel.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := collector.Metrics(); len(got) > 0 {
		t.Errorf("metrics arrived unasked: %q", got)
	}
}

func TestLinesOfLibrariesGoToTheLog(t *testing.T) {
	var out bytes.Buffer
	setup(t, telemetry.Config{Log: telemetry.LogConfig{Output: &out}})
	log.Print("unhandled frame")
	if text := out.String(); !strings.Contains(text, `"msg":"library","message":"unhandled frame"`) {
		t.Errorf("log %q", text)
	}
}

func TestExporterErrorsGoToTheLog(t *testing.T) {
	quiet(t)
	collector := otlptest.New()
	collector.Close() // refuses connections from now on
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
	var lines bytes.Buffer
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{
		Log: telemetry.LogConfig{Output: &lines}, Getenv: os.Getenv,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer("test").Start(t.Context(), "lost")
	span.End()
	shutErr := tel.Shutdown(t.Context())
	if shutErr == nil && !strings.Contains(lines.String(), `"msg":"opentelemetry"`) {
		t.Errorf("the lost span shows neither in Shutdown's error nor in the log %q", lines.String())
	}
	if again := tel.Shutdown(t.Context()); !errors.Is(again, shutErr) {
		t.Errorf("second Shutdown = %v, want %v", again, shutErr)
	}
}

func count(t *testing.T, tel *telemetry.Telemetry, ctx context.Context, attrs ...attribute.KeyValue) { //nolint:revive // t first in tests
	t.Helper()
	events, err := tel.Meter("test").Int64Counter("postrider.test.events")
	if err != nil {
		t.Fatal(err)
	}
	events.Add(ctx, 1, metric.WithAttributes(attrs...))
}

func scrape(tel *telemetry.Telemetry) string {
	answer := httptest.NewRecorder()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	tel.Handler().ServeHTTP(answer, request)
	return answer.Body.String()
}
