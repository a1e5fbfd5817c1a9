package otlptest

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is a span as it arrived. Ids are in lower-case hex.
type Span struct {
	Name     string
	Kind     string // "internal", "server", "client", "producer" or "consumer"
	TraceID  string
	SpanID   string
	ParentID string // "" for a root
	Links    []Link
	Start    time.Time
	End      time.Time
	// Attributes are the span's own; values are string, bool, int64, float64,
	// or []any of these.
	Attributes map[string]any
	// Resource describes the process that made the span.
	Resource map[string]any
	// Failed reports whether the status is an error, Message why.
	Failed  bool
	Message string
}

// Link is another span that a Span names.
type Link struct {
	TraceID string
	SpanID  string
}

// Tree draws one trace: a name per line, children two spaces deeper than their
// parent and in the order of their start. A span whose parent did not arrive is
// drawn as a root.
func Tree(spans []Span, traceID string) string {
	children := map[string][]Span{}
	arrived := map[string]bool{}
	for _, span := range spans {
		if span.TraceID == traceID {
			arrived[span.SpanID] = true
		}
	}
	for _, span := range spans {
		if span.TraceID != traceID {
			continue
		}
		parent := span.ParentID
		if !arrived[parent] {
			parent = ""
		}
		children[parent] = append(children[parent], span)
	}
	var out strings.Builder
	draw(&out, children, "", 0)
	return out.String()
}

// draw takes each span's children out of the map, so that it ends also where
// spans name each other as parents.
func draw(out *strings.Builder, children map[string][]Span, parent string, depth int) {
	spans := children[parent]
	delete(children, parent)
	slices.SortStableFunc(spans, func(a, b Span) int {
		return cmp.Or(a.Start.Compare(b.Start), strings.Compare(a.Name, b.Name))
	})
	for _, span := range spans {
		out.WriteString(strings.Repeat("  ", depth) + span.Name + "\n")
		draw(out, children, span.SpanID, depth+1)
	}
}

func newSpan(resource map[string]any, span *tracepb.Span) Span {
	s := Span{
		Name:       span.GetName(),
		Kind:       strings.ToLower(strings.TrimPrefix(span.GetKind().String(), "SPAN_KIND_")),
		TraceID:    hex.EncodeToString(span.GetTraceId()),
		SpanID:     hex.EncodeToString(span.GetSpanId()),
		ParentID:   hex.EncodeToString(span.GetParentSpanId()),
		Start:      time.Unix(0, int64(span.GetStartTimeUnixNano())), //nolint:gosec // until the year 2262
		End:        time.Unix(0, int64(span.GetEndTimeUnixNano())),   //nolint:gosec // until the year 2262
		Attributes: attributes(span.GetAttributes()),
		Resource:   resource,
		Failed:     span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Message:    span.GetStatus().GetMessage(),
	}
	for _, link := range span.GetLinks() {
		s.Links = append(s.Links, Link{
			TraceID: hex.EncodeToString(link.GetTraceId()),
			SpanID:  hex.EncodeToString(link.GetSpanId()),
		})
	}
	return s
}

func attributes(pairs []*commonpb.KeyValue) map[string]any {
	attrs := make(map[string]any, len(pairs))
	for _, pair := range pairs {
		attrs[pair.GetKey()] = value(pair.GetValue())
	}
	return attrs
}

func value(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_ArrayValue:
		items := make([]any, 0, len(v.ArrayValue.GetValues()))
		for _, item := range v.ArrayValue.GetValues() {
			items = append(items, value(item))
		}
		return items
	default: // bytes and maps: no span of ours has them
		return nil
	}
}
