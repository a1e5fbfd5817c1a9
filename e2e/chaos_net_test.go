package e2e

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// network is the proxies between the parts of a gateway and what they talk to.
type network struct {
	t      *testing.T
	server *toxiproxy.ApiServer
	links  map[string][]*toxiproxy.Proxy // "deliver-1/kafka" → one for each broker
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{
		t:      t,
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		links:  map[string][]*toxiproxy.Proxy{},
	}
	t.Cleanup(func() {
		for _, link := range n.links {
			for _, p := range link {
				p.Stop()
			}
		}
	})
	return n
}

// link adds a proxy before an address to a link and returns the proxy's address,
// which nobody else takes while the proxy is stopped.
func (n *network) link(name, upstream string) (string, error) {
	p := toxiproxy.NewProxy(n.server, name+"/"+strconv.Itoa(len(n.links[name])), freeAddress(n.t), upstream)
	if err := p.Start(); err != nil {
		return "", fmt.Errorf("proxy before %s: %w", upstream, err)
	}
	n.links[name] = append(n.links[name], p)
	return p.Listen, nil
}

// way is a link to the brokers for services.Options.
func (n *network) way(name string) func(broker, port int) (string, error) {
	return func(_, port int) (string, error) {
		return n.link(name, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	}
}

// redis is a link to Redis: the URL through the proxy.
func (n *network) redis(name, direct string) (string, error) {
	u, err := url.Parse(direct)
	if err != nil {
		return "", err
	}
	u.Host, err = n.link(name, u.Host)
	return u.String(), err
}

// trouble is a way for a link to be bad, as a toxic in toxiproxy's JSON; both
// directions get it.
type trouble string

const (
	// stalled: what is sent is lost, connections stay open until they are mended,
	// when they end.
	stalled trouble = `{"type":"timeout","attributes":{"timeout":0}}`
	// resetting: each connection is reset with the first bytes.
	resetting trouble = `{"type":"reset_peer","attributes":{"timeout":0}}`
	// laggy: everything comes late.
	laggy trouble = `{"type":"latency","attributes":{"latency":150,"jitter":100}}`
	// refusing: connections end at once and none is made.
	refusing trouble = "refused"
)

// hurt makes a link bad until it is mended.
func (n *network) hurt(name string, how trouble) error {
	for _, p := range n.links[name] {
		if how == refusing {
			p.Stop()
			continue
		}
		for _, direction := range []string{"upstream", "downstream"} {
			doc := strings.Replace(string(how), "{", `{"name":"`+direction+`","stream":"`+direction+`",`, 1)
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(doc)); err != nil {
				return fmt.Errorf("hurt %s: %w", name, err)
			}
		}
	}
	return nil
}

// mend makes a link good again.
func (n *network) mend(ctx context.Context, name string) error {
	for _, p := range n.links[name] {
		p.Toxics.ResetToxics(ctx)
		if !p.Enabled {
			if err := p.Start(); err != nil {
				return fmt.Errorf("mend %s: %w", name, err)
			}
		}
	}
	return nil
}
