package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxURL  = 2048
	maxHost = 253
)

// ErrURL is wrapped by the errors of CheckURL that are not a *BlockedError.
var ErrURL = errors.New("url not allowed")

// CheckURL parses a URL as it is saved and refuses what could never be sent: any
// scheme but http and https, user info, a fragment, more than 2,048 bytes, a
// host that is missing, not ASCII or a disguised number, ports other than 80,
// 443 and 1024 up, and a literal address that is blocked. It looks no names up:
// see CheckHost. An error wraps ErrURL or is a *BlockedError; it never quotes
// the URL. The result may be kept and used for many requests.
func (c *Client) CheckURL(raw string) (*url.URL, error) {
	if len(raw) > maxURL {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrURL, maxURL)
	}
	if strings.ContainsAny(raw, " \t\r\n\\") {
		return nil, fmt.Errorf("%w: it contains white space or a backslash", ErrURL)
	}
	if strings.Contains(raw, "#") {
		return nil, fmt.Errorf("%w: it has a fragment", ErrURL)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be parsed", ErrURL)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%w: the scheme is not http or https", ErrURL)
	case u.User != nil:
		return nil, fmt.Errorf("%w: it contains user info", ErrURL)
	case u.Opaque != "" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return nil, fmt.Errorf("%w: it has no host or an empty port", ErrURL)
	}
	if err := checkURLPort(u); err != nil {
		return nil, err
	}
	if err := c.checkHostname(u.Hostname()); err != nil {
		return nil, err
	}
	return u, nil
}

// CheckHost resolves a host name, or reads a literal address, and reports
// whether at least one of its addresses may be reached. The error is a
// *BlockedError, or an *Error of ClassDNS: the look-up failed. The answer may differ when a
// request is sent: the check at dialling is the one that counts.
func (c *Client) CheckHost(ctx context.Context, host string) error {
	host = strings.Trim(host, "[]")
	addrs, err := lookup(ctx, c.cfg.Resolver, host)
	if err != nil {
		return &Error{Class: ClassDNS, Timeout: isTimeout(err), Detail: cleanText(dnsText(err)), cause: err}
	}
	allowed, blocked := c.guard.split(host, addrs)
	if len(allowed) == 0 {
		return blocked
	}
	return nil
}

func checkURLPort(u *url.URL) error {
	text := u.Port()
	if text == "" {
		return nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return fmt.Errorf("%w: the port is not a number up to 65535", ErrURL)
	}
	return checkPort(uint16(port))
}

func (c *Client) checkHostname(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return fmt.Errorf("%w: the address has a zone", ErrURL)
		}
		return c.guard.check(addr)
	}
	if len(host) > maxHost {
		return fmt.Errorf("%w: the host is longer than %d bytes", ErrURL, maxHost)
	}
	for _, r := range host {
		if !isHostRune(r) {
			return fmt.Errorf("%w: the host has other characters than ASCII letters, digits, '-', '_' and '.'", ErrURL)
		}
	}
	if endsInNumber(host) {
		return fmt.Errorf("%w: the host looks like a number but is no IPv4 address", ErrURL)
	}
	return nil
}

func isHostRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

// endsInNumber reports whether some resolvers would read host as an IPv4 address
// in another notation (127.1, 0x7f000001, 2130706433): no top-level domain is a number.
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	label := strings.ToLower(host[strings.LastIndexByte(host, '.')+1:])
	if hex, found := strings.CutPrefix(label, "0x"); found {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
