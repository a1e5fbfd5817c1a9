package egress

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postrider/postrider/internal/egress/http1"
)

// maxProxyAddrs bounds how many addresses of a target the proxy is asked for.
const maxProxyAddrs = 3

// ErrProxy is wrapped by the errors of ParseProxy.
var ErrProxy = errors.New("not usable as a proxy")

// ParseProxy reads the URL of a proxy: http://, https:// (TLS to the proxy) or
// socks5://, with user and password where it wants them, and a port other than
// 80, 443 and 1080. An error wraps ErrProxy and quotes nothing of it.
func ParseProxy(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: the URL can't be parsed", ErrProxy)
	}
	return u, checkProxy(u)
}

func checkProxy(u *url.URL) error {
	password, _ := u.User.Password()
	switch {
	case defaultProxyPort(u.Scheme) == "":
		return fmt.Errorf("%w: the scheme is not http, https or socks5", ErrProxy)
	case u.Opaque != "" || u.Hostname() == "":
		return fmt.Errorf("%w: the URL has no host", ErrProxy)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%w: the URL has a path, a query or a fragment", ErrProxy)
	case u.Scheme == "socks5" && (len(u.User.Username()) > 255 || len(password) > 255):
		return fmt.Errorf("%w: SOCKS5 takes at most 255 bytes of user and of password", ErrProxy)
	case u.Scheme != "socks5" && strings.Contains(u.User.Username(), ":"):
		return fmt.Errorf("%w: the user has a colon", ErrProxy)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%w: the port is not a number up to 65535", ErrProxy)
		}
	}
	return nil
}

func defaultProxyPort(scheme string) string {
	return map[string]string{"http": "80", "https": "443", "socks5": "1080"}[scheme]
}

// proxyError is a failure of the proxy, or of the way to it. Its text is shown to
// endpoints' owners, who are not told where the proxy is.
type proxyError struct {
	detail string
	cause  error
}

func (e *proxyError) Error() string { return e.detail }
func (e *proxyError) Unwrap() error { return e.cause }

// proxy opens connections to targets through a proxy. Where that is was chosen by
// the operator: the guard has no say in it.
type proxy struct {
	host   string
	port   uint16
	secure *tls.Config // nil: not https
	open   func(s *sock, target netip.AddrPort) error
	names  *names
	tcp    connector
}

func newProxy(cfg *Config, n *names) *proxy {
	u := cfg.Proxy
	if u == nil {
		return nil
	}
	text := u.Port()
	if text == "" {
		text = defaultProxyPort(u.Scheme)
	}
	port, _ := strconv.ParseUint(text, 10, 16) // checked
	p := &proxy{host: u.Hostname(), port: uint16(port), names: n, tcp: connector{timeout: cfg.ConnectTimeout}}
	password, _ := u.User.Password()
	switch u.Scheme {
	case "socks5":
		p.open = socks5{user: u.User.Username(), password: password, auth: u.User != nil}.open
		return p
	case "https":
		p.secure = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs, ServerName: p.host, NextProtos: []string{"http/1.1"}}
	}
	c := httpConnect{agent: cfg.UserAgent}
	if u.User != nil {
		c.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	p.open = c.open
	return p
}

// dial connects to the first of the targets that the proxy reaches. Their
// addresses have passed the guard.
func (p *proxy) dial(ctx context.Context, addrs []netip.Addr, port uint16) (*sock, error) {
	var first error
	for _, addr := range addrs[:min(len(addrs), maxProxyAddrs)] {
		s, err := p.dialOne(ctx, netip.AddrPortFrom(addr, port))
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		var refused *refusedError
		if ctx.Err() != nil || !errors.As(err, &refused) {
			break // the proxy itself fails: it would do so again
		}
	}
	return nil, first
}

func (p *proxy) dialOne(ctx context.Context, target netip.AddrPort) (*sock, error) {
	addrs, err := p.names.lookup(ctx, p.host)
	if err != nil {
		return nil, &proxyError{"the name of the proxy could not be looked up", err}
	}
	c, err := p.tcp.dialAny(ctx, addrs[:min(len(addrs), maxAddrs)], p.port)
	if err != nil {
		return nil, &proxyError{connectText(err), err}
	}
	s := newSock(c, net.TCPAddrFromAddrPort(target))
	if p.secure != nil {
		secure := tls.Client(c, p.secure)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = c.Close()
			return nil, &proxyError{"the TLS handshake with the proxy failed", err}
		}
		s.Conn = secure
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(longAgo()) })
	err = p.open(s, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return s, s.SetDeadline(time.Time{})
	}
	_ = c.Close()
	var refused *refusedError
	var credentials *proxyError
	switch {
	case errors.As(err, &refused):
		return nil, &proxyError{refused.detail, err}
	case errors.As(err, &credentials):
		return nil, err
	case isTimeout(err):
		return nil, &proxyError{"no answer of the proxy in time", err}
	}
	return nil, &proxyError{"the proxy closed the connection, or its answer makes no sense", err}
}

func connectText(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the proxy refuses connections"
	case isTimeout(err), errors.Is(err, syscall.ETIMEDOUT):
		return "no connection to the proxy in time"
	}
	return "no connection to the proxy"
}

// refusedError says why a proxy did not open a connection.
type refusedError struct{ detail string }

func (e *refusedError) Error() string { return e.detail }

// errProxyCredentials is no *refusedError for one address: all would fail.
func errProxyCredentials(what string) error {
	return &proxyError{"the proxy does not accept the credentials" + what, nil}
}

// httpConnect asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
type httpConnect struct {
	agent, authorization string
}

func (c httpConnect) open(s *sock, target netip.AddrPort) error {
	address := target.String()
	b := append([]byte("CONNECT "), address...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", address)
	b = appendField(b, "User-Agent", c.agent)
	if c.authorization != "" {
		b = appendField(b, "Proxy-Authorization", c.authorization)
	}
	if _, err := s.Write(append(b, "\r\n"...)); err != nil {
		return err
	}
	r := http1.New(s)
	defer r.Release()
	head, err := r.ReadHead(true)
	switch {
	case err != nil:
		return err
	case head.Status == 407:
		return errProxyCredentials(" (status 407)")
	case head.Status < 200 || head.Status > 299:
		return &refusedError{fmt.Sprintf("the proxy answered with status %d", head.Status)}
	case r.Buffered() > 0:
		return errors.New("bytes after the answer")
	}
	return nil
}
