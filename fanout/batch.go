package fanout

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/schemas"
)

// headerResubmit carries the number of an operator's resubmission; it makes the
// event's claim another one than that of the first submission.
const headerResubmit = "pr_resubmit"

// maxResubmit bounds the header's value, which becomes part of a key in Redis.
const maxResubmit = 32

// batch is what one poll returned and one transaction will finish. It is reused.
type batch struct {
	events  []item
	pages   []pageItem
	bombs   []*kgo.ErrDecompressTooLarge
	gaps    []*broker.GapError // where the log begins above what is to be read next
	tenants []string           // named by the valid events, each once
	records int                // events and pages
	oldest  time.Time
}

// item is an event on its way through the batch.
type item struct {
	rec    *kgo.Record
	event  schemas.Event
	id     string
	reject *rejection
	tenant judged
	claim  claim // has a key once the event is valid
	span   trace.Span
}

// pageItem is a page on its way through the batch.
type pageItem struct {
	rec    *kgo.Record
	page   schemas.Page
	reject *rejection
}

// rejection says why a record goes to the topic rejected.
type rejection struct {
	reason schemas.RejectReason
	detail string
	bare   bool // the record itself is left out: it would not fit
}

func (b *batch) reset() {
	clear(b.events)
	clear(b.pages)
	*b = batch{events: b.events[:0], pages: b.pages[:0], tenants: b.tenants[:0]}
}

func (b *batch) empty() bool { return b.records == 0 && !b.skips() }

// skips reports whether a commit of the batch goes past what can't be read.
func (b *batch) skips() bool { return len(b.bombs) > 0 || len(b.gaps) > 0 }

// add takes up a record that was polled.
func (b *batch) add(rec *kgo.Record, isPage bool) {
	b.records++
	if b.oldest.IsZero() || rec.Timestamp.Before(b.oldest) {
		b.oldest = rec.Timestamp
	}
	if isPage {
		b.pages = append(b.pages, pageItem{rec: rec})
		return
	}
	b.events = append(b.events, item{rec: rec})
}

// decode reads all records. What can't be read is marked as rejected; topicID is
// that of events, and reject tells what earlier transactions found out.
func (b *batch) decode(topicID [16]byte, suspect *suspects) {
	seen := make(map[string]struct{}, 16)
	for i := range b.events {
		it := &b.events[i]
		guard(&it.reject, func() { it.decode(topicID) })
		if r := suspect.verdict(it.rec); r != nil && it.reject == nil {
			it.reject = r
		}
		if it.reject != nil {
			continue
		}
		if _, ok := seen[it.event.Tenant]; !ok {
			seen[it.event.Tenant] = struct{}{}
			b.tenants = append(b.tenants, it.event.Tenant)
		}
	}
	for i := range b.pages {
		p := &b.pages[i]
		guard(&p.reject, p.decode)
		if r := suspect.verdict(p.rec); r != nil {
			p.reject = r
		}
	}
}

// decode reads and validates one event.
func (it *item) decode(topicID [16]byte) {
	ev, err := schemas.DecodeEvent(it.rec.Value, it.rec.Headers)
	if err != nil {
		it.reject = &rejection{reason: schemas.RejectMalformed, detail: err.Error()}
		return
	}
	if ev.Time == "" {
		ev.Time = it.rec.Timestamp.UTC().Format(time.RFC3339Nano)
	}
	it.event = ev
	if ev.Hops > schemas.MaxHops {
		it.reject = &rejection{reason: schemas.RejectHops, detail: fmt.Sprintf("the event passed %d gateways, at most %d are allowed", ev.Hops, schemas.MaxHops)}
		return
	}
	if err := ev.Validate(); err != nil {
		it.reject = &rejection{reason: schemas.RejectInvalid, detail: err.Error()}
		return
	}
	it.id = ev.EventID()
	it.reject = it.describeClaim(topicID)
}

// describeClaim prepares the event's claim.
func (it *item) describeClaim(topicID [16]byte) *rejection {
	resubmit := ""
	for _, h := range it.rec.Headers {
		if h.Key == headerResubmit {
			resubmit = string(h.Value)
		}
	}
	if len(resubmit) > maxResubmit {
		return &rejection{reason: schemas.RejectInvalid, detail: fmt.Sprintf("%s is %d bytes long, at most %d are allowed", headerResubmit, len(resubmit), maxResubmit)}
	}
	key, err := schemas.EventKey(it.id)
	if err != nil {
		return &rejection{reason: schemas.RejectInvalid, detail: err.Error()}
	}
	it.claim = newClaim(topicID, key, it.position(), resubmit)
	it.claim.setPayload(it.event.Data)
	return nil
}

// position is the event's place in the topic events.
func (it *item) position() schemas.Position {
	return schemas.Position{Partition: it.rec.Partition, Offset: it.rec.Offset}
}

func (p *pageItem) decode() {
	page, err := schemas.DecodePage(p.rec.Value, p.rec.Headers)
	if err != nil {
		p.reject = &rejection{reason: schemas.RejectMalformed, detail: err.Error()}
		return
	}
	p.page = page
}

// judgeTenants enters the tenants' state; an event of a tenant that does not exist
// is rejected.
func (b *batch) judgeTenants(found map[string]judged) {
	for i := range b.events {
		it := &b.events[i]
		if it.reject != nil {
			continue
		}
		it.tenant = found[it.event.Tenant]
		if !it.tenant.exists {
			it.reject = &rejection{reason: schemas.RejectUnknownTenant, detail: "no tenant " + it.event.Tenant}
		}
	}
}

// claims returns the claims to make, in the order of the batch, so that of two
// copies in it the first one wins.
func (b *batch) claims() []*claim {
	claims := make([]*claim, 0, len(b.events))
	for i := range b.events {
		it := &b.events[i]
		if it.reject == nil && !it.tenant.deleting {
			claims = append(claims, &it.claim)
		}
	}
	return claims
}

// rejectedClaims returns the claims of events that were rejected after all.
func (b *batch) rejectedClaims() []*claim {
	var claims []*claim
	for i := range b.events {
		it := &b.events[i]
		if it.reject != nil && it.reject.reason != schemas.RejectUnknownTenant && it.claim.key != "" {
			claims = append(claims, &it.claim)
		}
	}
	return claims
}

// endSpans ends what was begun for the batch; committed is false if the work was
// in vain and will be repeated.
func (b *batch) endSpans(committed bool) {
	for i := range b.events {
		if span := b.events[i].span; span != nil {
			if !committed {
				span.SetStatus(codes.Error, "aborted, will be repeated")
			}
			span.End()
		}
	}
}

// guard runs fn; a panic in it rejects the record.
func guard(reject **rejection, fn func()) {
	defer func() {
		if p := recover(); p != nil {
			*reject = &rejection{reason: schemas.RejectPanic, detail: fmt.Sprint(p)}
		}
	}()
	fn()
}
