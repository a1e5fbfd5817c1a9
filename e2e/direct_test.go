package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// sendKafka produces the messages as direct producers do, with a client that has
// nothing in common with the gateway's: half in binary mode, half structured,
// in all compressions.
func (g *gateway) sendKafka(all []message) {
	g.t.Helper()
	codecs := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
	var group errgroup.Group
	for i, codec := range codecs {
		group.Go(func() error {
			w := g.kafkaWriter(codec, &kafka.Hash{})
			defer func() { _ = w.Close() }()
			var records []kafka.Message
			for n := i; n < len(all); n += len(codecs) {
				records = append(records, all[n].record(n%2 == 0))
			}
			if err := w.WriteMessages(g.t.Context(), records...); err != nil {
				return fmt.Errorf("codec %v: %w", codec, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		g.t.Fatal(err)
	}
}

// kafkaWriter returns a producer of the topic events.
func (g *gateway) kafkaWriter(codec kafka.Compression, to kafka.Balancer) *kafka.Writer {
	// Its own transport: the shared one remembers which topics there were.
	transport := &kafka.Transport{}
	g.t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Writer{
		Transport: transport, Addr: kafka.TCP(g.kafka...), Topic: g.broker().Topics().Events, Balancer: to, Compression: codec,
		RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond, BatchBytes: 256 << 20,
	}
}

// record is the message as a record of the CloudEvents Kafka binding.
func (m message) record(binary bool) kafka.Message {
	if !binary {
		return kafka.Message{
			Key: []byte(m.ID), Value: m.structured(),
			Headers: []kafka.Header{{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")}},
		}
	}
	r := kafka.Message{Key: []byte(m.ID), Value: []byte(m.data())}
	for _, a := range m.attributes() {
		r.Headers = append(r.Headers, kafka.Header{Key: "ce_" + a[0], Value: []byte(a[1])})
	}
	r.Headers = append(r.Headers, kafka.Header{Key: "content-type", Value: []byte("application/json")})
	return r
}

// sendKcat produces the messages with kcat: the first few in binary mode, for
// which it needs a process each, the others structured.
func (g *gateway) sendKcat(t *testing.T, all []message, binary int) {
	t.Helper()
	base := []string{"-b", strings.Join(g.kafka, ","), "-P", "-t", g.broker().Topics().Events, "-X", "acks=all"}
	var group errgroup.Group
	group.SetLimit(4)
	for _, m := range all[:binary] {
		group.Go(func() error {
			args := append([]string(nil), base...)
			for _, a := range m.attributes() {
				args = append(args, "-H", "ce_"+a[0]+"="+a[1])
			}
			return kcat([]byte(m.data()), append(args, "-k", m.ID, "-H", "content-type=application/json")...)
		})
	}
	group.Go(func() error {
		var lines []byte
		for _, m := range all[binary:] {
			lines = append(append(lines, m.structured()...), '\n')
		}
		return kcat(lines, append(base, "-z", "gzip", "-H", "content-type=application/cloudevents+json")...)
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func kcat(input []byte, args ...string) error {
	cmd := exec.Command("kcat", args...)
	cmd.Stdin = bytes.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kcat: %w: %.500s", err, out)
	}
	return nil
}
