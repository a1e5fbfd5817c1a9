package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// connectProxy is an HTTP proxy that opens tunnels for those who know its
// password, and remembers where to.
type connectProxy struct {
	mu    sync.Mutex
	asked []string
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, _ := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
	if r.Method != http.MethodConnect || user != "u" || password != "hunter2" {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r.RequestURI)
	p.mu.Unlock()
	target, err := net.Dial("tcp", r.RequestURI)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = target.Close() }()
	w.WriteHeader(http.StatusOK)
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	go func() {
		_, _ = io.Copy(target, buffered)
		_ = target.Close()
	}()
	_, _ = io.Copy(c, target)
}

// TestDeliveriesThroughAProxy runs the demo with a proxy, which sees addresses
// and no names, and whose password is shown nowhere.
func TestDeliveriesThroughAProxy(t *testing.T) {
	proxy := &connectProxy{}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	address := freeAddress(t)
	out, errs, stop := background(t, "dev", "--demo", "--data="+t.TempDir(), "--listen="+address, "--instance=demo", "--log-level=debug",
		"--egress-proxy="+strings.Replace(s.URL, "http://", "http://u:hunter2@", 1))
	text := out.await(t, "The gateway stays up")
	if !strings.Contains(text, "healthy     8 got    8 verified") {
		t.Errorf("deliveries are missing in:\n%s", text)
	}
	if code := stop(); code != 0 {
		t.Errorf("ended with %d: %s", code, errs.String())
	}
	if shown := out.String() + errs.String(); strings.Contains(shown, "hunter2") {
		t.Errorf("the password is shown:\n%s", shown)
	}
	proxy.mu.Lock()
	defer proxy.mu.Unlock()
	for _, target := range proxy.asked {
		if !strings.HasPrefix(target, "127.0.0.1:") {
			t.Errorf("the proxy was asked for %s", target)
		}
	}
	if len(proxy.asked) == 0 {
		t.Error("the proxy was not asked")
	}
}
