package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/postrider/postrider/internal/pipe"
)

// EmbeddedConfig says where and how the embedded broker keeps its data.
type EmbeddedConfig struct {
	// Dir holds the log and the broker's port; it is made with mode 0700. One
	// process at a time may use it.
	Dir string
	// Sync makes every write durable before it is acknowledged. Without it an
	// acknowledged record survives kill -9 but not a power cut.
	Sync bool
	// Trim is how often the topics' size limits are applied; 0 means 10 s.
	Trim time.Duration
	// Logger gets the broker's messages; nil means silence.
	Logger *slog.Logger
}

// Embedded is a broker with the Kafka protocol in this process: one copy, on
// 127.0.0.1 only. Use it with [Config.Embedded]. What it doesn't do: replicas,
// broker timestamps, and compaction: a kill in the middle of kfake's loses the
// whole topic (measured), so compacted topics keep every record here.
type Embedded struct {
	cluster *kfake.Cluster
	ln      *pipe.Listener
	unlock  func() error
	// cleanFile exists while no process has the folder and the last one closed it.
	cleanFile string
	stop      chan struct{}
	stopped   sync.WaitGroup
	reading   atomic.Pointer[reading]
	log       *slog.Logger
	once      sync.Once
	err       error
}

// Settings of the embedded broker.
const (
	embeddedSegment    = 8 << 20 // limits by size are exact to one segment of each partition
	embeddedStateLog   = 1 << 20 // its rewriting stops the broker, for 150 ms at 10 MiB (measured)
	embeddedMinSession = time.Second
	recoverWait        = time.Minute
	// embeddedCleanerPause switches kfake's own cleaner off.
	embeddedCleanerPause = 10 * 365 * day
	// commits stay for ten years: a gateway that was off for a holiday must not
	// find its groups without commits.
	embeddedCommitMinutes = 10 * 365 * 24 * 60
)

// StartEmbedded opens the data folder and serves it. It listens on the port of
// the last time, so that clients outside find it again, or on a free one if that
// port is taken.
func StartEmbedded(conf EmbeddedConfig) (*Embedded, error) {
	setDefault(&conf.Trim, 10*time.Second)
	setDefault(&conf.Logger, slog.New(slog.DiscardHandler))
	if conf.Dir == "" {
		return nil, errors.New("embedded broker: a data folder is needed")
	}
	if err := os.MkdirAll(conf.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(conf.Dir, 0o700); err != nil { //nolint:gosec // a folder needs its x
		return nil, fmt.Errorf("close data folder to others: %w", err)
	}
	unlock, err := lockFile(filepath.Join(conf.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", conf.Dir, err)
	}
	e := &Embedded{unlock: unlock, stop: make(chan struct{}), cleanFile: filepath.Join(conf.Dir, "clean"), log: conf.Logger}
	if e.cluster, e.ln, err = openCluster(conf); err != nil {
		return nil, errors.Join(fmt.Errorf("open embedded broker: %w", err), unlock())
	}
	if err := e.recover(); err != nil {
		e.cluster.Close()
		return nil, errors.Join(fmt.Errorf("recover embedded broker: %w", err), unlock())
	}
	e.stopped.Go(func() { e.trim(conf.Trim) })
	return e, nil
}

// openCluster starts the broker; its one listener takes connections from within
// the process, too.
func openCluster(conf EmbeddedConfig) (cluster *kfake.Cluster, ln *pipe.Listener, err error) {
	portFile := filepath.Join(conf.Dir, "port")
	listen := kfake.ListenFn(func(network, _ string) (net.Listener, error) {
		tcp, err := listenAgain(network, portFile)
		if err != nil {
			return nil, err
		}
		ln = pipe.NewListener(tcp)
		return ln, nil
	})
	cluster, err = kfake.NewCluster(append(clusterOptions(conf), listen)...)
	return cluster, ln, err
}

// clusterOptions are the broker's settings.
func clusterOptions(conf EmbeddedConfig) []kfake.Opt {
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(conf.Dir, "log")),
		kfake.WithLogger(embeddedLogger{conf.Logger}),
		kfake.GroupMinSessionTimeout(embeddedMinSession),
		kfake.BrokerConfigs(map[string]string{
			"log.segment.bytes":         strconv.Itoa(embeddedSegment),
			"offsets.retention.minutes": strconv.Itoa(embeddedCommitMinutes),
			"log.cleaner.backoff.ms":    millis(embeddedCleanerPause),
			"state.log.compact.bytes":   strconv.Itoa(embeddedStateLog),
		}),
	}
	if conf.Sync {
		opts = append(opts, kfake.SyncWrites())
	}
	return opts
}

// listenAgain listens on loopback, on the port in the file if it is free, and
// writes the port that it got.
func listenAgain(network, portFile string) (net.Listener, error) {
	var ln net.Listener
	old, err := os.ReadFile(portFile) //nolint:gosec // in our own data folder
	if port := strings.TrimSpace(string(old)); err == nil && isPort(port) {
		ln, err = net.Listen(network, net.JoinHostPort("127.0.0.1", port)) //nolint:noctx // local and at once
	} else {
		err = errors.New("no port yet")
	}
	if err != nil {
		if ln, err = net.Listen(network, "127.0.0.1:0"); err != nil { //nolint:noctx // local and at once
			return nil, err
		}
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err == nil {
		err = os.WriteFile(portFile, []byte(port+"\n"), 0o600) //nolint:gosec // in our own data folder
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("keep port: %w", err), ln.Close())
	}
	return ln, nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// recover finishes what a kill left behind, unless the last process closed.
func (e *Embedded) recover() error {
	switch err := os.Remove(e.cleanFile); {
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), recoverWait)
	defer cancel()
	return abortLeftovers(ctx, e.Brokers())
}

// trim applies size limits until Close. kfake's own timer is not used: it
// compacts as well, and after a restart it stands still until a topic is created.
func (e *Embedded) trim(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
			e.cluster.ApplyRetention()
			if err := e.trimRead(); err != nil {
				e.log.Warn("trim what was read", "error", err)
			}
		}
	}
}

// Brokers returns the address to use as [Config.Brokers].
func (e *Embedded) Brokers() []string { return e.cluster.ListenAddrs() }

// Dial connects to the broker within the process, without the kernel; network
// and address are not looked at. Use it as [Config.Dial].
func (e *Embedded) Dial(ctx context.Context, _, _ string) (net.Conn, error) { return e.ln.Dial(ctx) }

// Close writes what is left to disk, stops the broker and frees the folder. It
// may be called again.
func (e *Embedded) Close() error {
	e.once.Do(func() {
		close(e.stop)
		e.stopped.Wait()
		e.cluster.Close()
		e.err = errors.Join(os.WriteFile(e.cleanFile, nil, 0o600), e.unlock())
	})
	return e.err
}
