package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/postrider/postrider/schemas"
)

// maxPayload bounds what is read of a file or the standard input, in bytes.
const maxPayload = 64 << 20

type eventsCmd struct {
	connection `embed:""`

	Send eventsSendCmd `cmd:"" help:"Send an event, or several as a batch."`
}

// payload is where an event's data, or a whole body, comes from.
type payload struct {
	Data *string `placeholder:"TEXT" help:"The data."`
	File string  `placeholder:"FILE" help:"File with the data; -, and nothing at all, is the standard input."`
}

func (p *payload) read(stdin io.Reader) ([]byte, error) {
	if p.Data != nil {
		if p.File != "" {
			return nil, errors.New("--data and --file exclude each other")
		}
		return []byte(*p.Data), nil
	}
	in := stdin
	if p.File != "" && p.File != "-" {
		f, err := os.Open(p.File)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("read the data: %w", err)
	}
	if len(data) > maxPayload {
		return nil, fmt.Errorf("the data has more than %s", byteSize(maxPayload))
	}
	return data, nil
}

type eventsSendCmd struct {
	Format       string            `default:"plain" enum:"plain,binary,structured,batch,ndjson" help:"Form of the request: ${enum}. With structured, batch and ndjson, and with plain without --type, the data is the whole body."`
	Type         string            `placeholder:"TYPE" help:"Event type, such as order.paid."`
	ID           string            `placeholder:"ID" help:"CloudEvents id; a repeat of an id is delivered once. One is made without it."`
	Source       string            `placeholder:"URI" help:"CloudEvents source."`
	Subject      string            `placeholder:"TEXT" help:"CloudEvents subject."`
	Time         string            `placeholder:"RFC3339" help:"When it happened; now without it."`
	Partitionkey string            `placeholder:"KEY" help:"Keeps events together and in order."`
	ContentType  string            `placeholder:"TYPE" help:"Media type of the data; JSON without it."`
	Extension    map[string]string `mapsep:"none" placeholder:"NAME=TEXT" help:"Extension attribute; once for each."`
	payload
}

// Run sends the events and shows what became of each.
func (c *eventsSendCmd) Run(ctx context.Context, conn *connection, std streams) error {
	data, err := c.read(std.in)
	if err != nil {
		return err
	}
	r, err := c.request(conn.Tenant, data)
	if err != nil {
		return err
	}
	client, err := conn.client()
	if err != nil {
		return err
	}
	answer, err := client.do(ctx, r)
	if err != nil {
		return err
	}
	return showResults(conn, std.out, answer)
}

// attributes are those given on the command line, by CloudEvents name.
func (c *eventsSendCmd) attributes(tenant string) map[string]string {
	attributes := map[string]string{}
	for name, value := range map[string]string{
		"type": c.Type, "id": c.ID, "source": c.Source, "subject": c.Subject, "time": c.Time,
		"partitionkey": c.Partitionkey, "datacontenttype": c.ContentType, "tenant": tenant,
	} {
		if value != "" {
			attributes[name] = value
		}
	}
	return attributes
}

func (c *eventsSendCmd) request(tenant string, data []byte) (apiRequest, error) {
	r := apiRequest{method: http.MethodPost, path: "/v1/events", body: data}
	if whole := wholeBody(c.Format); whole != "" || c.Type == "" && c.Format == "plain" {
		given := slices.Sorted(maps.Keys(c.attributes("")))
		if len(given) > 0 || len(c.Extension) > 0 {
			return r, fmt.Errorf("the data is the whole body: attributes stand in it, not in flags (%s); for one event, give --type", strings.Join(given, ", "))
		}
		if len(bytes.TrimSpace(data)) == 0 {
			return r, errors.New("no data: give --type for an event without data, or a body")
		}
		if whole == "" {
			whole = "application/json"
		}
		r.header = map[string]string{"Content-Type": whole}
		r.body = tenantIn(data, tenant, whole == wholeBody("ndjson"))
		return r, nil
	}
	if c.Format == "binary" {
		return c.binary(r, tenant)
	}
	return c.plain(r, tenant, data)
}

// tenantIn gives the tenant to each event of a body that names none: to the
// object that the body is, to each object of an array, or of a line. What is no
// such JSON stays as it is, for the gateway to say what is wrong with it.
func tenantIn(body []byte, tenant string, lines bool) []byte {
	if tenant == "" {
		return body
	}
	if lines {
		all := bytes.Split(body, []byte("\n"))
		for i, line := range all {
			all[i] = tenantIn(line, tenant, false)
		}
		return bytes.Join(all, []byte("\n"))
	}
	var many []json.RawMessage
	if json.Unmarshal(body, &many) == nil && many != nil {
		for i, one := range many {
			many[i] = tenantIn(one, tenant, false)
		}
		out, err := json.Marshal(many)
		if err != nil {
			return body
		}
		return out
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil || members == nil || members["tenant"] != nil {
		return body
	}
	name, err := json.Marshal(tenant)
	if err != nil {
		return body
	}
	end := bytes.LastIndexByte(body, '}')
	out := bytes.TrimRight(body[:end:end], " \t\r\n")
	if len(members) > 0 {
		out = append(out, ',')
	}
	out = append(append(out, `"tenant":`...), name...)
	return append(out, body[end:]...)
}

// wholeBody is the media type of the forms whose body is given as it is.
func wholeBody(format string) string {
	return map[string]string{
		"structured": "application/cloudevents+json", "batch": "application/cloudevents-batch+json", "ndjson": "application/x-ndjson",
	}[format]
}

func (c *eventsSendCmd) plain(r apiRequest, tenant string, data []byte) (apiRequest, error) {
	body := settings{}
	for name, value := range c.attributes(tenant) {
		body[name] = value
	}
	body.set("extensions", c.Extension, len(c.Extension) > 0)
	text, err := json.Marshal(body)
	if err != nil || len(data) == 0 {
		r.body = text
		return r, err
	}
	if !schemas.IsJSON(c.ContentType) {
		if data, err = json.Marshal(string(data)); err != nil {
			return r, err
		}
	} else if !json.Valid(data) {
		return r, errors.New("the data is not JSON; give --content-type, or --format binary for bytes")
	}
	r.body = withData(text, data)
	return r, nil
}

// withData returns a JSON object that has members with a further one, data, byte
// for byte.
func withData(object, data []byte) []byte {
	out := append(object[:len(object)-1:len(object)-1], `,"data":`...)
	return append(append(out, data...), '}')
}

// binary puts the attributes in headers (CloudEvents HTTP binding, section 3.1).
func (c *eventsSendCmd) binary(r apiRequest, tenant string) (apiRequest, error) {
	if c.Type == "" || c.ID == "" || c.Source == "" {
		return r, errors.New("--format binary needs --type, --id and --source")
	}
	r.header = map[string]string{"ce-specversion": "1.0", "Content-Type": "application/json"}
	attributes := c.attributes(tenant)
	if media := attributes["datacontenttype"]; media != "" {
		r.header["Content-Type"] = media
	}
	delete(attributes, "datacontenttype")
	maps.Copy(attributes, c.Extension)
	for name, value := range attributes {
		r.header["ce-"+name] = escapeHeader(value)
	}
	return r, nil
}

// escapeHeader percent-encodes what a header can't hold (section 3.1.3.2).
func escapeHeader(value string) string {
	var out strings.Builder
	for i := range len(value) {
		if b := value[i]; b <= ' ' || b > '~' || b == '"' || b == '%' {
			_, _ = fmt.Fprintf(&out, "%%%02X", b)
		} else {
			_ = out.WriteByte(b)
		}
	}
	return out.String()
}

// showResults shows the answer to one event or the results of several; an event
// that was not accepted is an error.
func showResults(conn *connection, w io.Writer, answer []byte) error {
	var many struct {
		Accepted int               `json:"accepted"`
		Results  []json.RawMessage `json:"results"`
	}
	if err := json.Unmarshal(answer, &many); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	rows := many.Results
	if rows == nil {
		rows = []json.RawMessage{answer}
		many.Accepted = 1
	}
	columns := []column{col("EVENT", "id"), col("CLOUDEVENTS ID", "cloudevents_id"), col("POSITION", "position")}
	if many.Results != nil {
		columns = append([]column{col("STATUS", "status")}, append(columns, col("PROBLEM", "problem.detail", "problem.code"))...)
	}
	if err := conn.show(w, columns, rows...); err != nil {
		return err
	}
	if rejected := len(rows) - many.Accepted; rejected > 0 {
		return fmt.Errorf("%d of %d events were not accepted", rejected, len(rows))
	}
	return nil
}
