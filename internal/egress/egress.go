// Package egress sends requests to addresses that strangers have chosen.
//
// In: a method, a parsed URL, headers, a body and a time limit. Out: a Result:
// the status and the start of the body, or an Error of a closed set of classes.
//
// What holds:
//
//  1. No connection is opened to an address that is not global unicast, unless
//     the operator allows its CIDR; metadata services are never allowed. The
//     check runs on the IP being dialled, whatever DNS said before.
//  2. No redirect is followed and no proxy of the environment is used; the proxy of
//     the Config gets checked IP addresses, never names.
//  3. The time limit covers the whole exchange, from the look-up to the end of
//     the body; what is read of a response is bounded.
//  4. A request is sent once. It is sent again only where the transport knows
//     that the endpoint did not process it: no byte was written to a kept
//     connection that turned out closed, or HTTP/2 refused the stream.
//  5. No error text holds user info, a query, or an address of this machine.
//
// Do blocks until the exchange ends; everything is safe for concurrent use.
package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	defaultTimeout        = 15 * time.Second
	defaultConnectTimeout = 10 * time.Second
	defaultMaxResponse    = 8 << 10
	defaultMaxDrain       = 64 << 10
	defaultMaxIdleConns   = 8192
	defaultMaxIdlePerHost = 256
	// Below the 60 s after which common load balancers drop an idle connection:
	// the side that closes first should be this one.
	defaultIdleTimeout = 55 * time.Second
	defaultUserAgent   = "Postrider"
)

// Resolver looks names up. A *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of host, in the order to try them.
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Config says what a Client may reach and how much it may use.
type Config struct {
	// AllowCIDRs are ranges that may be reached although they are not global
	// unicast, an IPv4 range also where an IPv6 address embeds it. Metadata
	// addresses stay blocked even when named here. None by default.
	AllowCIDRs []netip.Prefix
	// NAT64Prefixes are those of the operator's own gateways (RFC 6052), of 32, 40,
	// 48, 56, 64 or 96 bits: an address behind one is checked as the IPv4 address
	// inside it. 64:ff9b::/96 and 64:ff9b:1::/48 need not be named.
	NAT64Prefixes []netip.Prefix
	// Timeout limits a whole exchange whose Request names no time of its own; 0 means 15 s.
	Timeout time.Duration
	// ConnectTimeout limits the look-up together with the connect, and again the
	// TLS handshake; 0 means 10 s.
	ConnectTimeout time.Duration
	// MaxResponse is how many bytes of a response body are kept; 0 means 8 KiB.
	MaxResponse int64
	// MaxDrain is how many bytes beyond MaxResponse are read and dropped so that
	// the connection can be used again; 0 means 64 KiB. A longer body costs the connection.
	MaxDrain int64
	// MaxIdleConns bounds the idle connections to all hosts; 0 means 8192. Open
	// HTTP/2 connections count as idle ones, which may be three quarters of them.
	MaxIdleConns int
	// MaxIdlePerHost bounds the idle connections to one host; 0 means 256.
	MaxIdlePerHost int
	// IdleTimeout closes a connection that was not used for so long; 0 means 55 s.
	IdleTimeout time.Duration
	// UserAgent is sent by requests that name none; empty means "Postrider".
	UserAgent string
	// Resolver looks names up; nil means the resolver of the Go runtime.
	Resolver Resolver
	// RootCAs are the authorities trusted for TLS; nil means those of the system.
	RootCAs *x509.CertPool
	// DNSTTL is how long the addresses of a name are used again; 0 means not at
	// all. What was remembered is checked each time it is used.
	DNSTTL time.Duration
	// DNSNegativeTTL is how long a failed look-up counts for the name; 0 means not at all.
	DNSNegativeTTL time.Duration
	// Proxy is what all connections go through, see ParseProxy; nil means none. Its
	// own address may be anywhere. Names are looked up and checked here, and the
	// proxy is asked for a tunnel to the IP address, for http and https alike.
	Proxy *url.URL
}

// Client sends requests to all hosts.
type Client struct {
	cfg      Config
	guard    *guard
	dialer   *dialer
	pool     *pool
	ids      *identities
	outgoing sync.Pool
	buffers  sync.Pool
}

// New returns a Client. It opens nothing and starts nothing. An error names the
// field of cfg that is out of range.
func New(cfg Config) (*Client, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("configure egress: %w", err)
	}
	guard, err := newGuard(cfg.AllowCIDRs, cfg.NAT64Prefixes)
	if err != nil {
		return nil, fmt.Errorf("configure egress: %w", err)
	}
	c := &Client{cfg: cfg, guard: guard}
	c.dialer = newDialer(&c.cfg, guard)
	c.pool = newPool(&c.cfg, &c.dialer.h2Open)
	c.ids = newIdentities(func(t *TLS) *identity {
		config := newTLSConfig(&c.cfg, t)
		hosts, idle := plainH2Hosts, max(cfg.MaxIdleConns/2, 1)
		if t != nil {
			hosts, idle = identityH2Hosts, max(cfg.MaxIdleConns/4/maxIdentities, 1)
		}
		return &identity{config: config, transport: newTransport(&c.cfg, c.dialer, config, idle), h2: newH2Hosts(hosts)}
	}, func(id *identity) {
		id.transport.CloseIdleConnections()
		c.pool.closeAll(id)
	})
	c.outgoing.New = func() any { return &outgoing{} }
	c.buffers.New = func() any {
		buffer := make([]byte, cfg.MaxResponse)
		return &buffer
	}
	return c, nil
}

// CloseIdleConnections closes the connections that no exchange is using. One of
// HTTP/2 whose last answer has only just come may stay until its idle timeout.
func (c *Client) CloseIdleConnections() {
	c.ids.closeIdle()
	c.pool.closeAll(nil)
}

// CheckAddr reports whether a request may go to addr: nil, or a *BlockedError.
func (c *Client) CheckAddr(addr netip.Addr) error { return c.guard.check(addr) }

// complete sets defaults and refuses negative values.
func (cfg *Config) complete() error {
	err := errors.Join(
		setDefault("timeout", &cfg.Timeout, defaultTimeout),
		setDefault("connect timeout", &cfg.ConnectTimeout, defaultConnectTimeout),
		setDefault("max response", &cfg.MaxResponse, defaultMaxResponse),
		setDefault("max drain", &cfg.MaxDrain, defaultMaxDrain),
		setDefault("max idle connections", &cfg.MaxIdleConns, defaultMaxIdleConns),
		setDefault("max idle connections per host", &cfg.MaxIdlePerHost, defaultMaxIdlePerHost),
		setDefault("idle timeout", &cfg.IdleTimeout, defaultIdleTimeout),
		setDefault("DNS TTL", &cfg.DNSTTL, 0),
		setDefault("negative DNS TTL", &cfg.DNSNegativeTTL, 0),
	)
	if cfg.Proxy != nil {
		err = errors.Join(err, checkProxy(cfg.Proxy))
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	if cfg.Resolver == nil {
		cfg.Resolver = &net.Resolver{PreferGo: true}
	}
	return err
}

func setDefault[T ~int | ~int64](name string, field *T, value T) error {
	if *field < 0 {
		return fmt.Errorf("%s is negative", name)
	}
	if *field == 0 {
		*field = value
	}
	return nil
}
