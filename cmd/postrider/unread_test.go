package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Each stage has the age of what is unread and its share of the retention: an alert at
// half of it needs no more.
func TestUnreadShare(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	p := &process{stages: []stage{
		{"fanout", func() time.Duration { return 42 * time.Hour }, 7 * 24 * time.Hour},
		{"deliver", func() time.Duration { return 0 }, 7 * 24 * time.Hour},
	}}
	if err := p.observeUnread(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")); err != nil {
		t.Fatal(err)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, m := range got.ScopeMetrics[0].Metrics {
		gauge, ok := m.Data.(metricdata.Gauge[float64])
		if !ok {
			t.Fatalf("%s is a %T", m.Name, m.Data)
		}
		for _, point := range gauge.DataPoints {
			label, _ := point.Attributes.Value(stageKey)
			values[m.Name+" "+label.AsString()] = point.Value
		}
	}
	want := map[string]float64{
		"postrider.unread.age fanout": 42 * 3600, "postrider.unread.share fanout": 0.25,
		"postrider.unread.age deliver": 0, "postrider.unread.share deliver": 0,
	}
	if diff := cmp.Diff(want, values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
