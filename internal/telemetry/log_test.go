package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/telemetry"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

func TestLinesCarryTraceIds(t *testing.T) {
	ctx := trace.ContextWithRemoteSpanContext(t.Context(),
		telemetry.SpanContextFrom("00-"+traceID+"-"+spanID+"-01", ""))
	ids := func(more map[string]any) map[string]any {
		more["trace_id"], more["span_id"] = traceID, spanID
		return more
	}
	for _, tc := range []struct {
		name string
		log  func(*slog.Logger)
		want map[string]any
	}{
		{"in a span", func(l *slog.Logger) { l.InfoContext(ctx, "m", "attempt", 1) }, ids(map[string]any{"attempt": 1.0})},
		{"with attributes", func(l *slog.Logger) { l.With("role", "deliver").InfoContext(ctx, "m") }, ids(map[string]any{"role": "deliver"})},
		{
			"in a group",
			func(l *slog.Logger) {
				l.With("role", "deliver").WithGroup("kafka").With("a", 1).InfoContext(ctx, "m", "b", 2)
			},
			ids(map[string]any{"role": "deliver", "kafka": map[string]any{"a": 1.0, "b": 2.0}}),
		},
		{"without a span", func(l *slog.Logger) { l.WithGroup("").Info("m") }, map[string]any{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			logger, err := telemetry.NewLogger(telemetry.LogConfig{Output: &out})
			if err != nil {
				t.Fatal(err)
			}
			tc.log(logger)
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("line %q: %v", out.String(), err)
			}
			for _, key := range []string{"time", "level", "msg"} {
				if got[key] == nil {
					t.Errorf("no %s in %q", key, out.String())
				}
				delete(got, key)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("line (-want +got):\n%s", diff)
			}
		})
	}
}

// Two children of one logger must not write into each other's operations.
func TestChildrenOfALoggerAreIndependent(t *testing.T) {
	ctx := trace.ContextWithRemoteSpanContext(t.Context(),
		telemetry.SpanContextFrom("00-"+traceID+"-"+spanID+"-01", ""))
	var out bytes.Buffer
	logger, err := telemetry.NewLogger(telemetry.LogConfig{Output: &out, Format: telemetry.LogText})
	if err != nil {
		t.Fatal(err)
	}
	parent := logger.WithGroup("g").With("a", 1).With("b", 2)
	one, two := parent.With("c", "one"), parent.With("c", "two")
	one.InfoContext(ctx, "m")
	two.InfoContext(ctx, "m")
	for i, want := range []string{"g.a=1 g.b=2 g.c=one\n", "g.a=1 g.b=2 g.c=two\n"} {
		if line := strings.SplitAfter(out.String(), "\n")[i]; !strings.HasSuffix(line, want) {
			t.Errorf("line %q does not end in %q", line, want)
		}
	}
}

func TestLogLevelAndFormat(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  telemetry.LogConfig
		want string // prefix of the first line
	}{
		{"default is JSON from info", telemetry.LogConfig{}, `{"time":`},
		{"text", telemetry.LogConfig{Format: telemetry.LogText}, "time="},
		{"warn", telemetry.LogConfig{Level: slog.LevelWarn}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			tc.cfg.Output = &out
			logger, err := telemetry.NewLogger(tc.cfg)
			if err != nil {
				t.Fatal(err)
			}
			logger.Debug("hidden")
			logger.Info("shown at info")
			if got := out.String(); strings.Contains(got, "hidden") || !strings.HasPrefix(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("output = %q, want prefix %q", got, tc.want)
			}
		})
	}
	if _, err := telemetry.NewLogger(telemetry.LogConfig{Format: "xml"}); err == nil {
		t.Error("NewLogger took format xml")
	}
}

func TestProcessLoggerNamesRoleAndInstance(t *testing.T) {
	var out bytes.Buffer
	tel := setup(t, telemetry.Config{Role: "fanout", Instance: "f-1", Log: telemetry.LogConfig{Output: &out}})
	tel.Logger().Info("ready")
	if got := out.String(); !strings.Contains(got, `"role":"fanout","instance":"f-1"`) {
		t.Errorf("line %q names neither role nor instance", got)
	}
}
