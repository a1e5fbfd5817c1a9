package services

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

//go:embed server.properties.tmpl
var propertiesTemplate string

//go:embed log4j2.properties
var log4j []byte

// startWait bounds the start of one or more brokers; on two busy cores three
// brokers take 15 s.
const startWait = 2 * time.Minute

// Options says what Kafka to start.
type Options struct {
	Brokers int    // 1 to 3; 0 means 1
	Dir     string // for data and logs; "" means a temporary folder that Stop removes
	HeapMB  int    // of each broker; 0 means 384
	Relay   bool   // have a second listener behind a Relay per broker: Kafka.Relays
	// Ways are further listeners of every broker, each behind a proxy of the
	// caller's: Kafka.Ways.
	Ways []Way
}

// Way makes an address under which clients reach a broker's listener at
// 127.0.0.1:port.
type Way func(broker, port int) (address string, err error)

// Kafka is a cluster of real brokers on this machine.
type Kafka struct {
	Brokers []string // host:port of each
	Relays  []*Relay // with Options.Relay: a client that begins here meets only these
	// Ways are the brokers' addresses on each way of Options.Ways: a client that
	// begins at one of Ways[i] meets the brokers on that way alone.
	Ways  [][]string
	jars  string
	dir   string
	temp  bool
	heap  int
	procs []*process
}

// node is what one broker's server.properties says.
type node struct {
	ID, Port, ControllerPort int
	Further                  []listener // beside the one of its own
	Voters, Data             string
	Replicas, MinISR         int
}

// listener is a further listener of a broker.
type listener struct {
	Name    string
	Port    int
	Address string // what it is called to others
}

// StartKafka fetches (once), formats and starts brokers and returns when all of
// them answer. An error says in plain words what is missing.
func StartKafka(ctx context.Context, opts Options) (*Kafka, error) {
	if opts.Brokers == 0 {
		opts.Brokers = 1
	}
	if opts.Brokers < 1 || opts.Brokers > 3 {
		return nil, fmt.Errorf("%d brokers: must be 1 to 3", opts.Brokers)
	}
	if opts.HeapMB == 0 {
		opts.HeapMB = 384
	}
	if _, err := exec.LookPath("java"); err != nil {
		return nil, errors.New("no java")
	}
	libs, err := jars(ctx)
	if err != nil {
		return nil, err
	}
	k := &Kafka{jars: libs, dir: opts.Dir, heap: opts.HeapMB, procs: make([]*process, opts.Brokers)}
	if k.dir == "" {
		if k.dir, err = os.MkdirTemp("", "postrider-kafka-"); err != nil {
			return nil, fmt.Errorf("make a folder for Kafka: %w", err)
		}
		k.temp = true
	}
	ways := opts.Ways
	if opts.Relay {
		ways = append([]Way{k.relay}, ways...)
	}
	if err := k.bootstrap(ctx, ways); err != nil {
		k.Stop()
		return nil, err
	}
	if opts.Relay {
		k.Ways = k.Ways[1:]
	}
	return k, nil
}

// relay is the way through the cluster's own relays.
func (k *Kafka) relay(_, port int) (string, error) {
	r, err := newRelay("127.0.0.1:" + strconv.Itoa(port))
	if err != nil {
		return "", err
	}
	k.Relays = append(k.Relays, r)
	return r.Address, nil
}

// bootstrap writes the configuration, formats the disks and starts all brokers.
func (k *Kafka) bootstrap(ctx context.Context, ways []Way) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := k.configure(ways); err != nil {
		return err
	}
	cluster := clusterID()
	for i := range k.procs {
		err := run(ctx, "java", "-XX:TieredStopAtLevel=1", k.log4jFlag(), "-cp", k.jars+"/*",
			"kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c", k.file(i, "properties"))
		if err != nil {
			return fmt.Errorf("format broker %d: %w", i, err)
		}
	}
	for i := range k.procs {
		if err := k.launch(ctx, i); err != nil {
			return err
		}
	}
	for i := range k.procs {
		if err := k.await(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// configure chooses ports and writes each broker's files.
func (k *Kafka) configure(ways []Way) error {
	n := len(k.procs)
	ports, err := FreePorts((2 + len(ways)) * n)
	if err != nil {
		return err
	}
	further, err := k.open(ways, ports[2*n:])
	if err != nil {
		return err
	}
	voters := make([]string, n)
	for i := range n {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[n+i])
		k.Brokers = append(k.Brokers, "127.0.0.1:"+strconv.Itoa(ports[i]))
	}
	if err := os.WriteFile(k.log4jFile(), log4j, 0o600); err != nil {
		return fmt.Errorf("write log settings: %w", err)
	}
	properties, err := template.New("server.properties").Parse(propertiesTemplate)
	if err != nil {
		return fmt.Errorf("parse server.properties: %w", err)
	}
	for i := range n {
		var b strings.Builder
		nd := node{
			ID: i + 1, Port: ports[i], ControllerPort: ports[n+i],
			Voters: strings.Join(voters, ","), Data: k.file(i, "data"),
			Replicas: n, MinISR: min(n, 2), Further: further[i],
		}
		err := properties.Execute(&b, nd)
		if err == nil {
			err = os.WriteFile(k.file(i, "properties"), []byte(b.String()), 0o600)
		}
		if err != nil {
			return fmt.Errorf("write server.properties: %w", err)
		}
	}
	return nil
}

// open has a way made to each of the ports, and returns each broker's listeners.
func (k *Kafka) open(ways []Way, ports []int) ([][]listener, error) {
	out := make([][]listener, len(k.procs))
	for w, way := range ways {
		var addresses []string
		for i := range k.procs {
			port := ports[w*len(k.procs)+i]
			address, err := way(i, port)
			if err != nil {
				return nil, fmt.Errorf("make a way to broker %d: %w", i, err)
			}
			addresses = append(addresses, address)
			out[i] = append(out[i], listener{Name: "WAY" + strconv.Itoa(w), Port: port, Address: address})
		}
		k.Ways = append(k.Ways, addresses)
	}
	return out, nil
}

func (k *Kafka) launch(ctx context.Context, i int) error {
	p, err := launch(ctx, k.file(i, "log"), "java", fmt.Sprintf("-Xmx%dm", k.heap), "-XX:+UseSerialGC",
		"-XX:TieredStopAtLevel=1", k.log4jFlag(), "-cp", k.jars+"/*", "kafka.Kafka", k.file(i, "properties"))
	if err != nil {
		return fmt.Errorf("broker %d: %w", i, err)
	}
	k.procs[i] = p
	return nil
}

// await returns when broker i itself says that it is part of a working cluster.
func (k *Kafka) await(ctx context.Context, i int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers[i]), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	err = k.procs[i].await(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		for _, b := range resp.Brokers {
			if b.NodeID == int32(i+1) { //nolint:gosec // at most 3
				return nil
			}
		}
		return errors.New("not registered yet")
	})
	if err != nil {
		return fmt.Errorf("wait for broker %d: %w\n%s", i, err, logTail(k.file(i, "log")))
	}
	return nil
}

// Kill ends broker i like kill -9 and returns when it is gone.
func (k *Kafka) Kill(i int) { k.procs[i].kill() }

// Start starts broker i again, with its old port and data, and waits for it.
func (k *Kafka) Start(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	if err := k.launch(ctx, i); err != nil {
		return err
	}
	return k.await(ctx, i)
}

// Pause stops broker i in its tracks: its connections stay, nothing answers.
func (k *Kafka) Pause(i int) error { return k.procs[i].pause() }

// Resume lets a paused broker go on.
func (k *Kafka) Resume(i int) error { return k.procs[i].resume() }

// Stop kills all brokers and removes a temporary folder.
func (k *Kafka) Stop() {
	for _, r := range k.Relays {
		r.Close()
	}
	for _, p := range k.procs {
		if p != nil {
			p.kill()
		}
	}
	if k.temp {
		_ = os.RemoveAll(k.dir) // it is in the temporary folder anyway
	}
}

// Log returns the path of broker i's log.
func (k *Kafka) Log(i int) string { return k.file(i, "log") }

func (k *Kafka) file(i int, kind string) string {
	return filepath.Join(k.dir, fmt.Sprintf("broker-%d.%s", i, kind))
}

func (k *Kafka) log4jFile() string { return filepath.Join(k.dir, "log4j2.properties") }

func (k *Kafka) log4jFlag() string { return "-Dlog4j2.configurationFile=" + k.log4jFile() }

// clusterID makes an id in Kafka's form: 16 bytes in URL-safe base64. One that
// begins with a dash would be taken for a flag.
func clusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}
