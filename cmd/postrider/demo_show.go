package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/postrider/postrider/schemas"
)

// demoShow writes the demo's lines, in columns.
type demoShow struct {
	term  *terminal
	names map[string]string // endpoint id → name
}

// matchAnswer is the answer of the dry run of subscriptions.
type matchAnswer struct {
	Verdicts []struct {
		Endpoint string `json:"endpoint_id"`
		Outcome  string `json:"outcome"`
	} `json:"verdicts"`
}

// endpoints counts the endpoints that get the event.
func (m *matchAnswer) endpoints() int {
	matched := map[string]bool{}
	for _, v := range m.Verdicts {
		if v.Outcome == "matched" {
			matched[v.Endpoint] = true
		}
	}
	return len(matched)
}

func (s *demoShow) opening(endpoints []*demoEndpoint) {
	s.term.line("")
	s.term.line("Tenant %q has three endpoints on a receiver in this process:", demoTenant)
	for _, e := range endpoints {
		s.term.line("  %-8s  %s  %s", e.name, e.id, e.about)
	}
	s.term.line("")
	s.row("TIME", "", "WHAT", "EVENT TYPE", "DETAILS")
}

// row is one line; the colour is that of what happened.
func (s *demoShow) row(at, colour, what, eventType, details string) {
	s.term.line("%-12s  %s  %-32s  %s", at, s.term.paint(colour, fmt.Sprintf("%-9s", what)), clip(eventType, 32), details)
}

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

func (s *demoShow) accepted(e sample, id string, took time.Duration) {
	s.row(clock(time.Now()), "", "accepted", e.eventType,
		fmt.Sprintf("%s  %d bytes, in Kafka after %d ms", id, len(e.data), took.Milliseconds()))
}

// matched says which endpoints get the event, and why others don't.
func (s *demoShow) matched(e sample, m *matchAnswer) {
	var yes, no []string
	for _, v := range m.Verdicts {
		switch name := s.name(v.Endpoint); v.Outcome {
		case "matched":
			yes = append(yes, name)
		case "type_not_matched":
			no = append(no, name+": other type")
		case "filtered":
			no = append(no, name+": its filter says no")
		default:
			no = append(no, name+": "+v.Outcome)
		}
	}
	details := "to " + strings.Join(yes, ", ")
	if len(yes) == 0 {
		details = "to nobody"
	}
	if len(no) > 0 {
		details += s.term.paint(grey, "  not to "+strings.Join(no, ", "))
	}
	s.row(clock(time.Now()), "", "matched", e.eventType, details)
}

func (s *demoShow) attempt(a *schemas.Attempt) {
	details := fmt.Sprintf("%-8s  attempt %d  %3d in %.0f ms", s.name(a.Endpoint), a.Attempt, a.Status, a.Duration)
	if a.Status == 0 && a.Error != "" {
		details += "  " + a.Error
	}
	if a.NextAt != nil {
		details += "  next at " + clock(*a.NextAt)
	}
	s.row(clock(a.StartedAt), outcomeColour(a.Outcome), string(a.Outcome), a.Type, details)
}

func (s *demoShow) name(endpoint string) string {
	if name := s.names[endpoint]; name != "" {
		return name
	}
	return endpoint
}

func (s *demoShow) closing(d *demo) {
	s.term.line("")
	s.term.line("Every delivery has ended. Requests that the receivers got, and whose signature they verified:")
	for _, e := range d.endpoints {
		s.term.line("  %-8s  %3d got  %3d verified", e.name, e.received.Load(), e.verified.Load())
	}
	s.term.line("")
	s.term.line("The gateway stays up; Ctrl-C ends it. Send the next event:")
	s.term.line("")
	s.term.line("  curl -sS %s/v1/events \\", d.api)
	s.term.line("    -H 'Authorization: Bearer %s' \\", d.token)
	s.term.line("    -H 'Content-Type: application/json' \\")
	s.term.line(`    -d '{"type":"stripe.charge.succeeded","data":{"amount":4900}}'`)
	s.term.line("")
}
