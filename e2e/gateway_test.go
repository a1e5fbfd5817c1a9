package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/postrider/postrider/e2e/services"
	"github.com/postrider/postrider/internal/broker"
	"github.com/postrider/postrider/internal/registry"
	"github.com/postrider/postrider/internal/testkit"
)

// adminKey is the bearer token of every gateway under test.
const adminKey = "admin_e2e_0123456789abcdef"

// binary returns the path of the program under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("POSTRIDER_BINARY"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "postrider-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "postrider")
	out, err := exec.Command("go", "build", "-o", path, "../cmd/postrider").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// gateway is the roles of one installation, each a process of its own, on a
// real Kafka and Redis.
type gateway struct {
	t      *testing.T
	prefix string
	kafka  []string
	redis  *services.Redis // nil: not a single server
	url    string          // of Redis
	seal   string
	strict bool                // without --allow-unsafe, with the copies that production has
	ways   map[string]way      // how an instance reaches what it needs; absent: directly
	flags  map[string][]string // further ones of an instance
	other  map[string]string   // another program for an instance
	mu     sync.Mutex
	procs  map[string]*proc
}

// way is how a process reaches Kafka and Redis.
type way struct {
	kafka []string
	redis string
}

// reach returns an instance's way.
func (g *gateway) reach(instance string) way {
	if w, ok := g.ways[instance]; ok {
		return w
	}
	return way{g.kafka, g.url}
}

// proc is one process of a gateway.
type proc struct {
	role, instance, listen string
	cmd                    *exec.Cmd
	done                   chan struct{}
	log                    *os.File
	env                    []string
}

// need skips the test, or fails it where REQUIRE=all, if a service is missing.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv(services.RequireEnv) == "all" {
		t.Fatalf("missing: %s (%s)", what, os.Getenv(services.MissingEnv))
	}
	t.Skipf("missing: %s (%s)", what, os.Getenv(services.MissingEnv))
}

// newGateway returns an installation without processes, with its own Redis and
// its own topics on the Kafka of KAFKA_BROKERS.
func newGateway(t *testing.T) *gateway {
	t.Helper()
	g := newGatewayOn(t, theKafka(t))
	t.Cleanup(func() { testkit.DropTopics(t, g.broker()) }) // when the processes are gone
	return g
}

// theKafka returns the brokers of KAFKA_BROKERS.
func theKafka(t *testing.T) []string {
	t.Helper()
	need(t, os.Getenv(services.KafkaEnv) != "", "a real Kafka")
	return strings.Split(os.Getenv(services.KafkaEnv), ",")
}

// newGatewayOn returns an installation with its own Redis on the given brokers.
func newGatewayOn(t *testing.T, kafka []string) *gateway {
	t.Helper()
	rds, err := services.StartRedis(t.Context(), services.RedisOptions{})
	need(t, err == nil, fmt.Sprintf("a real Redis: %v", err))
	t.Cleanup(rds.Stop)
	g := gatewayOf(t, kafka, rds.URL)
	g.redis = rds
	return g
}

// gatewayOf returns an installation on the given brokers and Redis.
func gatewayOf(t *testing.T, kafka []string, url string) *gateway {
	t.Helper()
	keyset, err := registry.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return &gateway{
		t: t, prefix: "e2e" + uuid.NewString()[:8] + ".", kafka: kafka, url: url, seal: keyset,
		procs: map[string]*proc{},
	}
}

// roles is the four roles in the order in which they are started.
func roles() []string { return []string{"control", "ingest", "fanout", "deliver"} }

// startAll starts one process of each role, unless the test has started it
// already, and waits until all are ready.
func (g *gateway) startAll() *gateway {
	g.t.Helper()
	for _, role := range roles() {
		if g.proc(role+"-1") == nil {
			g.start(role, role+"-1")
		}
	}
	for _, role := range roles() {
		g.ready(role + "-1")
	}
	return g
}

// start starts a process of a role under an instance name; a second start under
// the same name uses the same address.
func (g *gateway) start(role, instance string, env ...string) {
	g.t.Helper()
	path, err := g.other[instance], error(nil)
	if path == "" {
		path, err = binary()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	old := g.procs[instance]
	g.mu.Unlock()
	p := &proc{role: role, instance: instance, done: make(chan struct{}), env: env}
	if old != nil {
		p.listen, p.env = old.listen, append(old.env, env...)
	} else {
		p.listen = freeAddress(g.t)
	}
	reach := g.reach(instance)
	args := []string{
		role, "--listen", p.listen, "--instance", instance, "--topic-prefix", g.prefix,
		"--kafka-brokers", strings.Join(reach.kafka, ","), "--redis-url", reach.redis, "--events-partitions", "8",
		"--deliveries-partitions", "8", "--drain-timeout", "10s",
	}
	if !g.strict {
		args = append(args, "--allow-unsafe", "--replication-factor", "1", "--min-insync-replicas", "1")
	}
	if role == "deliver" || role == "control" || role == "all" {
		args = append(args, "--egress-allow-cidr", "127.0.0.0/8")
	}
	p.cmd = exec.Command(path, append(args, g.flags[instance]...)...)
	p.cmd.Env = append(append(os.Environ(), "POSTRIDER_ADMIN_KEY="+adminKey, "POSTRIDER_SEAL_KEY="+g.seal), p.env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.log, err = os.OpenFile(filepath.Join(g.logDir(), instance+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	g.mu.Lock()
	g.procs[instance] = p
	g.mu.Unlock()
	g.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done; _ = p.log.Close() })
}

// logDir is where the processes' logs go: a folder that outlives the test if
// E2E_LOGS names it.
func (g *gateway) logDir() string {
	dir := os.Getenv("E2E_LOGS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "postrider-e2e-logs")
	}
	dir = filepath.Join(dir, g.t.Name(), strings.TrimSuffix(g.prefix, "."))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		g.t.Fatal(err)
	}
	return dir
}

// nextPort is the port that freeAddress looks at next.
var nextPort atomic.Int32

// freeAddress returns an address that nobody listens on. Its port is below those
// that the system gives to outgoing connections, or one of these could take it
// before the process listens, and no two processes of the tests get the same. Each
// run begins elsewhere: others may run these tests on the same machine.
func freeAddress(t *testing.T) string {
	t.Helper()
	begin := int32(os.Getpid() * 37 % 10000)
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 21000+(begin+nextPort.Add(1))%10000)
		ln, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		_ = ln.Close()
		return address
	}
	t.Fatal("no free port from 21000 to 31000")
	return ""
}

// ready waits until a process says that it is.
func (g *gateway) ready(instance string) {
	g.t.Helper()
	p := g.proc(instance)
	eventually(g.t, 3*time.Minute, instance+" is ready", func() bool {
		select {
		case <-p.done:
			log, _ := os.ReadFile(p.log.Name())
			g.t.Fatalf("%s ended: %s", instance, tail(log, 2000))
		default:
		}
		resp, err := http.Get("http://" + p.listen + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode == http.StatusOK
	})
}

func tail(b []byte, n int) string {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}

func (g *gateway) proc(instance string) *proc {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.procs[instance]
}

// kill ends a process like kill -9.
func (g *gateway) kill(instance string) {
	p := g.proc(instance)
	_ = p.cmd.Process.Kill()
	<-p.done
}

// signal sends a signal to a process.
func (g *gateway) signal(instance string, s syscall.Signal) {
	g.t.Helper()
	if err := g.proc(instance).cmd.Process.Signal(s); err != nil {
		g.t.Fatal(err)
	}
}

// stop ends a process in an orderly way and reports its exit code.
func (g *gateway) stop(instance string) int {
	g.t.Helper()
	p := g.proc(instance)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(60 * time.Second):
		g.t.Fatalf("%s does not end", instance)
	}
	return p.cmd.ProcessState.ExitCode()
}

// broker is the gateway's Kafka configuration, for reading its topics.
func (g *gateway) broker() broker.Config {
	return broker.Config{Brokers: g.kafka, Prefix: g.prefix, Dev: true, AllowUnsafe: true}
}

// scan gives every committed record of a topic to fn.
func (g *gateway) scan(topic string, fn func(*kgo.Record)) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(g.t.Context()), 2*time.Minute)
	defer cancel()
	cl, err := g.broker().NewClient()
	if err != nil {
		g.t.Fatal(err)
	}
	defer cl.Close()
	r, err := broker.NewPointReader(g.broker())
	if err != nil {
		g.t.Fatal(err)
	}
	defer r.Close()
	report, err := broker.Ensure(ctx, cl, g.broker())
	if err != nil {
		g.t.Fatal(err)
	}
	for p := range report.Partitions[topic] {
		end, err := broker.LastStableOffset(ctx, cl, topic, p)
		if err != nil {
			g.t.Fatal(err)
		}
		for at := int64(0); at < end; {
			s, err := r.Read(ctx, topic, p, at, 8<<20)
			if err != nil {
				g.t.Fatal(err)
			}
			for _, rec := range s.Records {
				fn(rec)
			}
			if s.Next <= at {
				break
			}
			at = s.Next
		}
	}
}

// api sends a request to the process of a role and decodes the answer.
func (g *gateway) api(method, path string, body, into any) int {
	g.t.Helper()
	status, err := g.try("control-1", method, path, body, into)
	if err != nil {
		g.t.Fatalf("%s %s: %v", method, path, err)
	}
	return status
}

// client has as many idle connections as the load generators use.
var client = &http.Client{
	Timeout:   30 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 1024},
}

// try sends a request to an instance.
func (g *gateway) try(instance, method, path string, body, into any) (int, error) {
	var doc []byte
	if body != nil {
		var err error
		if doc, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequest(method, "http://"+g.proc(instance).listen+path, bytes.NewReader(doc))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	if into != nil && resp.StatusCode < 300 {
		return resp.StatusCode, json.Unmarshal(answer, into)
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusServiceUnavailable {
		return resp.StatusCode, fmt.Errorf("%d: %s", resp.StatusCode, answer)
	}
	return resp.StatusCode, nil
}

// insist repeats a write while the answer is 503, as a careful client does.
func (g *gateway) insist(method, path string, body, into any) {
	g.t.Helper()
	eventually(g.t, 2*time.Minute, method+" "+path, func() bool {
		status, err := g.try("control-1", method, path, body, into)
		if status >= 400 && status < 500 {
			g.t.Fatalf("%s %s: %v", method, path, err)
		}
		return err == nil && status < 300
	})
}

// tenant makes the tenant that the tests use.
func (g *gateway) tenant() { g.insist("PUT", "/v1/tenants/acme", map[string]any{"name": "Acme"}, nil) }

// settings are the members of an endpoint beside its URL.
type settings map[string]any

// endpoint makes an endpoint for a receiver and returns its id.
func (g *gateway) endpoint(url string, s settings) string {
	g.t.Helper()
	body := settings{"url": url}
	maps.Copy(body, s)
	var got struct {
		ID string `json:"id"`
	}
	g.insist("POST", "/v1/tenants/acme/endpoints", body, &got)
	return got.ID
}

// secret returns an endpoint's signing secret.
func (g *gateway) secret(endpoint string) string {
	var got struct {
		Secret string `json:"secret"`
	}
	g.insist("GET", "/v1/tenants/acme/endpoints/"+endpoint+"/secret", nil, &got)
	return got.Secret
}

// eventually waits until a condition holds. It asks at most half of the time: to
// read whole topics costs what is waited for its processor.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(within)
	for asked := time.Now(); !ok(); asked = time.Now() {
		now := time.Now()
		if now.After(deadline) {
			t.Fatalf("not reached within %s: %s", within, what)
		}
		<-time.After(max(50*time.Millisecond, now.Sub(asked)))
	}
}
