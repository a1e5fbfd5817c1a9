package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/schemas"
)

// message is an event whose way can be told before it is sent.
type message struct {
	ID, Type string
	Total    int
}

// messages returns n events of four types with totals from 0 to 199.
func messages(n int) []message {
	types := []string{"order.paid", "order.refunded", "order.paid.late", "user.created"}
	out := make([]message, n)
	for i := range out {
		out[i] = message{ID: uuid.NewString(), Type: types[i%len(types)], Total: i * 7 % 200}
	}
	return out
}

// event is the message's event id, the webhook-id of its deliveries.
func (m message) event() string { return schemas.EventID("acme", "/e2e", m.ID) }

func (m message) data() string { return fmt.Sprintf(`{"n":%q,"total":%d}`, m.ID, m.Total) }

// plain is the message as plain JSON.
func (m message) plain() []byte {
	return fmt.Appendf(nil, `{"type":%q,"id":%q,"source":"/e2e","tenant":"acme","data":%s}`, m.Type, m.ID, m.data())
}

// structured is the message in the CloudEvents JSON format.
func (m message) structured() []byte {
	return fmt.Appendf(nil, `{"specversion":"1.0","type":%q,"id":%q,"source":"/e2e","tenant":"acme","datacontenttype":"application/json","data":%s}`,
		m.Type, m.ID, m.data())
}

// attributes is the message's attributes in binary mode, by name.
func (m message) attributes() [][2]string {
	return [][2]string{{"specversion", "1.0"}, {"id", m.ID}, {"source", "/e2e"}, {"type", m.Type}, {"tenant", "acme"}}
}

// form is a way to send messages in one request.
type form struct {
	name, contentType string
	size              int // messages in a request
	header            func(message) [][2]string
	body              func([]message) []byte
}

func forms() []form {
	lines := func(ms []message) []byte {
		var body []byte
		for i, m := range ms {
			line := m.plain()
			if i%2 == 1 {
				line = m.structured()
			}
			body = append(append(body, line...), '\n')
		}
		return body
	}
	batch := func(ms []message) []byte {
		docs := make([][]byte, len(ms))
		for i, m := range ms {
			docs[i] = m.structured()
		}
		return append(append([]byte{'['}, bytes.Join(docs, []byte{','})...), ']')
	}
	return []form{
		{"plain", "application/json", 1, nil, func(ms []message) []byte { return ms[0].plain() }},
		{"binary", "application/json", 1, message.attributes, func(ms []message) []byte { return []byte(ms[0].data()) }},
		{"structured", "application/cloudevents+json", 1, nil, func(ms []message) []byte { return ms[0].structured() }},
		{"batch", "application/cloudevents-batch+json", 60, nil, batch},
		{"lines", "application/x-ndjson", 60, nil, lines},
	}
}

// sendForms sends the messages over HTTP in all forms in turn, each request with
// another content coding than the one before. All must be accepted.
func (g *gateway) sendForms(all []message) {
	g.t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	codings, kinds := []string{"", "gzip", "zstd"}, forms()
	for i := 0; len(all) > 0; i++ {
		f, coding := kinds[i%len(kinds)], codings[i%len(codings)]
		n := min(f.size, len(all))
		part := all[:n]
		all = all[n:]
		group.Go(func() error {
			if err := g.sendForm(f, coding, part); err != nil {
				return fmt.Errorf("%s, coding %q: %w", f.name, coding, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gateway) sendForm(f form, coding string, part []message) error {
	body, err := pack(coding, f.body(part))
	if err != nil {
		return err
	}
	header := http.Header{"Content-Type": {f.contentType}}
	if coding != "" {
		header.Set("Content-Encoding", coding)
	}
	if f.header != nil {
		for _, a := range f.header(part[0]) {
			header.Set("Ce-"+a[0], a[1])
		}
	}
	got, err := g.call("ingest-1", "POST", "/v1/events", header, bytes.NewReader(body))
	if err != nil {
		return err
	}
	var answer struct {
		ID      string `json:"id"`
		Results []struct {
			ID string `json:"id"`
		} `json:"results"`
	}
	if err := json.Unmarshal(got.body, &answer); err != nil || got.status != http.StatusAccepted {
		return fmt.Errorf("%d: %.500s", got.status, got.body)
	}
	ids := []string{answer.ID}
	if answer.Results != nil {
		ids = ids[:0]
		for _, r := range answer.Results {
			ids = append(ids, r.ID)
		}
	}
	for i, m := range part {
		if i >= len(ids) || ids[i] != m.event() {
			return fmt.Errorf("answered ids %q, want %s at %d", ids, m.event(), i)
		}
	}
	return nil
}

// pack compresses a body.
func pack(coding string, body []byte) ([]byte, error) {
	var out bytes.Buffer
	var z io.WriteCloser
	switch coding {
	case "gzip":
		z = gzip.NewWriter(&out)
	case "zstd":
		w, err := zstd.NewWriter(&out)
		if err != nil {
			return nil, err
		}
		z = w
	default:
		return body, nil
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// answer is what a process answered to a request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request to an instance, with the admin key unless the header has
// an Authorization of its own.
func (g *gateway) call(instance, method, path string, header http.Header, body io.Reader) (answer, error) {
	req, err := http.NewRequest(method, "http://"+g.proc(instance).listen+path, body)
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	if _, ok := req.Header["Authorization"]; !ok {
		req.Header.Set("Authorization", "Bearer "+adminKey)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: text}, err
}
