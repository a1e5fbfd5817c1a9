package control

import (
	"context"
	"fmt"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// instruments are control's own metrics. Labels are bounded: operations are
// those of the API, statuses are by hundreds.
type instruments struct {
	requests    metric.Int64Counter
	auditErrors metric.Int64Counter
	dropped     metric.Int64Counter
}

func newInstruments(provider metric.MeterProvider) (instruments, error) {
	meter := provider.Meter("github.com/postrider/postrider/control")
	var m instruments
	for _, c := range []struct {
		into              *metric.Int64Counter
		name, description string
	}{
		{&m.requests, "postrider.control.requests", "Requests to the management API."},
		{&m.auditErrors, "postrider.control.audit.errors", "Audit records that could not be written."},
		{&m.dropped, "postrider.control.stream.dropped", "Attempts that slow readers of the stream did not get."},
	} {
		counter, err := meter.Int64Counter(c.name, metric.WithDescription(c.description))
		if err != nil {
			return m, fmt.Errorf("make the counter %s: %w", c.name, err)
		}
		*c.into = counter
	}
	return m, nil
}

func (m instruments) request(ctx context.Context, operation string, status int) {
	m.requests.Add(ctx, 1, metric.WithAttributes(
		attribute.String("operation", operation),
		attribute.String("http.response.status_class", strconv.Itoa(status/100)+"xx"),
	))
}
