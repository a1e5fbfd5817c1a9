package egress_test

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/egress"
)

// rangeRow is one range with the classes of its first and last address and of
// the ones before and after it; "-" where there is none.
type rangeRow struct {
	prefix, what               string
	first, last, before, after egress.AddrClass
}

// registry holds the IANA registries of special-purpose addresses (RFC 6890, as
// of 2026), multicast and what else is not for ordinary hosts.
func registry() []rangeRow {
	const (
		none      = egress.AddrClass("-")
		ok        = egress.AddrClass("")
		loopback  = egress.AddrLoopback
		private   = egress.AddrPrivate
		cgnat     = egress.AddrCGNAT
		linkLocal = egress.AddrLinkLocal
		multicast = egress.AddrMulticast
		reserved  = egress.AddrReserved
		embedded  = egress.AddrEmbeddedV4
	)
	return []rangeRow{
		{"0.0.0.0/8", "this network (RFC 791)", reserved, reserved, none, ok},
		{"0.0.0.0/32", "this host (RFC 1122)", reserved, reserved, none, reserved},
		{"10.0.0.0/8", "private use (RFC 1918)", private, private, ok, ok},
		{"100.64.0.0/10", "shared address space (RFC 6598)", cgnat, cgnat, ok, ok},
		{"127.0.0.0/8", "loopback (RFC 1122)", loopback, loopback, ok, ok},
		{"169.254.0.0/16", "link local (RFC 3927)", linkLocal, linkLocal, ok, ok},
		{"172.16.0.0/12", "private use", private, private, ok, ok},
		{"192.0.0.0/24", "IETF protocol assignments (RFC 6890)", reserved, reserved, ok, ok},
		{"192.0.0.0/29", "IPv4 service continuity (RFC 7335)", reserved, reserved, ok, reserved},
		{"192.0.0.8/32", "dummy address (RFC 7600)", reserved, reserved, reserved, reserved},
		{"192.0.0.9/32", "port control anycast (RFC 7723)", reserved, reserved, reserved, reserved},
		{"192.0.0.10/32", "TURN anycast (RFC 8155)", reserved, reserved, reserved, reserved},
		{"192.0.0.170/31", "NAT64 discovery (RFC 8880, RFC 7050)", reserved, reserved, reserved, reserved},
		{"192.0.2.0/24", "documentation (RFC 5737)", reserved, reserved, ok, ok},
		{"192.31.196.0/24", "AS112 (RFC 7535)", reserved, reserved, ok, ok},
		{"192.52.193.0/24", "AMT (RFC 7450)", reserved, reserved, ok, ok},
		{"192.88.99.0/24", "6to4 relay anycast (RFC 7526)", reserved, reserved, ok, ok},
		{"192.88.99.2/32", "6a44 relay anycast (RFC 6751)", reserved, reserved, reserved, reserved},
		{"192.168.0.0/16", "private use", private, private, ok, ok},
		{"192.175.48.0/24", "direct delegation AS112 (RFC 7534)", reserved, reserved, ok, ok},
		{"198.18.0.0/15", "benchmarking (RFC 2544)", reserved, reserved, ok, ok},
		{"198.51.100.0/24", "documentation", reserved, reserved, ok, ok},
		{"203.0.113.0/24", "documentation", reserved, reserved, ok, ok},
		{"224.0.0.0/4", "multicast (RFC 1112)", multicast, multicast, ok, reserved},
		{"240.0.0.0/4", "reserved (RFC 1112)", reserved, reserved, multicast, none},
		{"255.255.255.255/32", "limited broadcast (RFC 919)", reserved, reserved, reserved, none},

		{"::/128", "unspecified (RFC 4291)", reserved, reserved, none, loopback},
		{"::1/128", "loopback (RFC 4291)", loopback, loopback, reserved, reserved},
		{"::/96", "IPv4-compatible (RFC 4291)", reserved, embedded, none, reserved},
		{"::ffff:0:0/96", "IPv4-mapped (RFC 4291)", reserved, reserved, reserved, reserved},
		{"::ffff:0:0:0/96", "IPv4-translated (RFC 2765)", embedded, embedded, reserved, reserved},
		{"64:ff9b::/96", "NAT64 (RFC 6052)", embedded, embedded, reserved, reserved},
		{"64:ff9b:1::/48", "local NAT64 (RFC 8215)", embedded, reserved, reserved, reserved},
		{"100::/64", "discard only (RFC 6666)", reserved, reserved, reserved, reserved},
		{"100:0:0:1::/64", "dummy prefix (RFC 9780)", reserved, reserved, reserved, reserved},
		{"2000::/3", "global unicast (RFC 4291)", ok, ok, reserved, reserved},
		{"2001::/23", "IETF protocol assignments (RFC 2928)", embedded, reserved, ok, ok},
		{"2001::/32", "Teredo (RFC 4380)", embedded, embedded, ok, reserved},
		{"2001:1::1/128", "port control anycast (RFC 7723)", reserved, reserved, reserved, reserved},
		{"2001:1::2/128", "TURN anycast (RFC 8155)", reserved, reserved, reserved, reserved},
		{"2001:1::3/128", "service registration anycast (RFC 9665)", reserved, reserved, reserved, reserved},
		{"2001:2::/48", "benchmarking (RFC 5180)", reserved, reserved, reserved, reserved},
		{"2001:3::/32", "AMT (RFC 7450)", reserved, reserved, reserved, reserved},
		{"2001:4:112::/48", "AS112 (RFC 7535)", reserved, reserved, reserved, reserved},
		{"2001:10::/28", "ORCHID, deprecated (RFC 4843)", reserved, reserved, reserved, reserved},
		{"2001:20::/28", "ORCHIDv2 (RFC 7343)", reserved, reserved, reserved, reserved},
		{"2001:30::/28", "drone identifiers (RFC 9374)", reserved, reserved, reserved, reserved},
		{"2001:db8::/32", "documentation (RFC 3849)", reserved, reserved, ok, ok},
		{"2002::/16", "6to4 (RFC 3056)", embedded, embedded, ok, ok},
		{"2620:4f:8000::/48", "direct delegation AS112 (RFC 7534)", reserved, reserved, ok, ok},
		{"3fff::/20", "documentation (RFC 9637)", reserved, reserved, ok, ok},
		{"5f00::/16", "segment routing (RFC 9602)", reserved, reserved, reserved, reserved},
		{"fc00::/7", "unique local (RFC 4193)", private, private, reserved, reserved},
		{"fe80::/10", "link local (RFC 4291)", linkLocal, linkLocal, reserved, private},
		{"fec0::/10", "site local, deprecated (RFC 3879)", private, private, linkLocal, multicast},
		{"ff00::/8", "multicast (RFC 4291)", multicast, multicast, private, none},
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// The check is the same for an address in a URL that is saved, for a name that
// is saved and leads there, and for a request to either.
func TestSpecialRanges(t *testing.T) {
	c := newGuarded(t, egress.Config{})
	for _, row := range registry() {
		p := netip.MustParsePrefix(row.prefix)
		if p != p.Masked() {
			t.Errorf("%s has bits beyond its length", p)
		}
		last := lastOf(p)
		for _, tt := range []struct {
			where string
			addr  netip.Addr
			want  egress.AddrClass
		}{
			{"first", p.Addr(), row.first},
			{"last", last, row.last},
			{"before", p.Addr().Prev(), row.before},
			{"after", last.Next(), row.after},
		} {
			if tt.want == "-" {
				if tt.addr.IsValid() {
					t.Errorf("%s (%s): there is an address %s", row.prefix, row.what, tt.where)
				}
				continue
			}
			wantAddr(t, c, tt.addr, tt.want, fmt.Sprintf("%s of %s (%s)", tt.where, row.prefix, row.what))
		}
	}
}

// guarded is a client with the resolver that it asks.
type guarded struct {
	*egress.Client
	names *resolver
}

func newGuarded(t *testing.T, cfg egress.Config) *guarded {
	t.Helper()
	names := &resolver{answers: map[string][][]netip.Addr{}}
	cfg.Resolver = names
	return &guarded{newClient(t, cfg), names}
}

// wantAddr checks one address in all four ways. No request is sent to one that
// is allowed.
func wantAddr(t *testing.T, g *guarded, addr netip.Addr, want egress.AddrClass, what string) {
	t.Helper()
	literal := "http://" + addr.String() + "/"
	if addr.Is6() {
		literal = "http://[" + addr.String() + "]/"
	}
	_, urlErr := g.CheckURL(literal)
	name := "a" + hex.EncodeToString(addr.AsSlice()) + ".example"
	g.names.answers[name] = [][]netip.Addr{{addr}}
	for how, err := range map[string]error{
		"address": g.CheckAddr(addr), "URL": urlErr, "name": g.CheckHost(t.Context(), name),
	} {
		if got := classOf(t, err); got != want {
			t.Errorf("%s, %s as %s: class %q, want %q", addr, what, how, got, want)
		}
	}
	if g.CheckAddr(addr) == nil {
		return
	}
	for _, u := range []string{literal, "https://" + name + "/"} {
		result := send(t, g.Client, u)
		if result.Err == nil || result.Err.Class != egress.ClassBlockedAddress || classOf(t, result.Err) != want {
			t.Errorf("%s, %s: request ended as %v", addr, what, result.Err)
		}
	}
}

// embeddings are all ways to hide an IPv4 address in an IPv6 address. The
// operator's prefixes are those of TestEmbeddings.
func embeddings(v4 netip.Addr) map[string]netip.Addr {
	v := v4.As4()
	inv := [4]byte{^v[0], ^v[1], ^v[2], ^v[3]}
	hex := func(b [4]byte) string { return fmt.Sprintf("%02x%02x:%02x%02x", b[0], b[1], b[2], b[3]) }
	texts := map[string]string{
		"mapped":               "::ffff:" + hex(v),
		"compatible":           "::" + hex(v),
		"translated":           "::ffff:0:" + hex(v),
		"NAT64":                "64:ff9b::" + hex(v),
		"local NAT64 /48":      fmt.Sprintf("64:ff9b:1:%02x%02x:%02x:%02x00::", v[0], v[1], v[2], v[3]),
		"local NAT64 /56":      fmt.Sprintf("64:ff9b:1:%02x:%02x:%02x%02x::", v[0], v[1], v[2], v[3]),
		"local NAT64 /64":      fmt.Sprintf("64:ff9b:1:0:%02x:%02x%02x:%02x00:0", v[0], v[1], v[2], v[3]),
		"local NAT64 /96":      "64:ff9b:1:abcd::" + hex(v),
		"6to4":                 "2002:" + hex(v) + "::1",
		"Teredo, server":       "2001:0:" + hex(v) + "::f7f7:f7f7",
		"Teredo, client":       "2001:0:808:808::" + hex(inv),
		"ISATAP":               "2606:4700::5efe:" + hex(v),
		"ISATAP, global":       "2606:4700::200:5efe:" + hex(v),
		"ISATAP in 6to4":       "2002:808:808::5efe:" + hex(v),
		"operator's NAT64 /32": "2a01:4f8:" + hex(v) + "::",
		"operator's NAT64 /40": fmt.Sprintf("2a02:26f0:10%02x:%02x%02x:%02x::", v[0], v[1], v[2], v[3]),
		"operator's NAT64 /48": fmt.Sprintf("2a03:2880:1:%02x%02x:%02x:%02x00::", v[0], v[1], v[2], v[3]),
		"operator's NAT64 /56": fmt.Sprintf("2a04:4e42:1:1%02x:%02x:%02x%02x::", v[0], v[1], v[2], v[3]),
		"operator's NAT64 /64": fmt.Sprintf("2a05:d018:1:1:%02x:%02x%02x:%02x00:0", v[0], v[1], v[2], v[3]),
		"operator's NAT64 /96": "fd64:1:2:3::" + hex(v),
	}
	addrs := map[string]netip.Addr{}
	for name, text := range texts {
		addrs[name] = netip.MustParseAddr(text)
	}
	return addrs
}

func operatorNAT64() []netip.Prefix {
	var list []netip.Prefix
	for _, text := range []string{
		"2a01:4f8::/32", "2a02:26f0:1000::/40", "2a03:2880:1::/48", "2a04:4e42:1:100::/56", "2a05:d018:1:1::/64", "fd64:1:2:3::/96",
	} {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// Of each special range of IPv4, the first and the last address are blocked in
// every embedding, and what is just outside is what it would be in the open.
func TestEmbeddings(t *testing.T) {
	c := newGuarded(t, egress.Config{NAT64Prefixes: operatorNAT64()})
	for _, row := range registry() {
		p := netip.MustParsePrefix(row.prefix)
		if p.Addr().Is6() {
			continue
		}
		for v4, want := range map[netip.Addr]egress.AddrClass{
			p.Addr(): row.first, lastOf(p): row.last, p.Addr().Prev(): row.before, lastOf(p).Next(): row.after,
		} {
			if want == "-" {
				continue
			}
			for name, addr := range embeddings(v4) {
				if want == "" && manyReadings(name, v4) {
					continue
				}
				wantAddr(t, c, addr, inside(name, v4, want), name+" of "+v4.String())
			}
		}
	}
}

// manyReadings reports whether an address may be read as another IPv4 address,
// too: which layout a local NAT64 has is not known, and all readings must pass.
func manyReadings(name string, v4 netip.Addr) bool {
	v := v4.As4()
	return strings.HasPrefix(name, "local NAT64") && (name != "local NAT64 /96" || v[1] == 0 && v[2] == 0 && v[3] == 0)
}

// inside is the class of an embedding of an address of a class.
func inside(name string, v4 netip.Addr, class egress.AddrClass) egress.AddrClass {
	v := v4.As4()
	switch name {
	case "mapped":
		return class
	case "compatible": // no such addresses are on the internet; low ones are not even IPv4
		if v[0] == 0 && v[1] == 0 && v[2] == 0 {
			return map[bool]egress.AddrClass{true: egress.AddrLoopback, false: egress.AddrReserved}[v[3] == 1]
		}
		if class == "" {
			return egress.AddrReserved
		}
	case "translated":
		if class == "" {
			return egress.AddrReserved
		}
	}
	if class == "" {
		return ""
	}
	return egress.AddrEmbeddedV4
}

// Metadata addresses are blocked as such whatever the operator allows, in the
// open and in every embedding.
func TestMetadataIsNeverAllowed(t *testing.T) {
	for _, text := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "192.0.0.192", "168.63.129.16", "169.254.42.42",
		"169.254.0.23", "169.254.10.10", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
	} {
		addr := netip.MustParseAddr(text)
		all := map[string]netip.Addr{"itself": addr, "zone": addr}
		if addr.Is4() {
			all = embeddings(addr)
			all["itself"] = addr
		}
		for name, hidden := range all {
			cfg := egress.Config{NAT64Prefixes: operatorNAT64()}
			for _, p := range []string{"0.0.0.0/0", "::/0", "169.254.0.0/16", "::ffff:0:0/96", "64:ff9b::/96"} {
				cfg.AllowCIDRs = append(cfg.AllowCIDRs, netip.MustParsePrefix(p))
			}
			cfg.AllowCIDRs = append(cfg.AllowCIDRs, netip.PrefixFrom(addr, addr.BitLen()), netip.PrefixFrom(hidden, hidden.BitLen()))
			wantAddr(t, newGuarded(t, cfg), hidden, egress.AddrMetadata, name+" of "+text)
		}
	}
}

func TestNAT64PrefixesAreChecked(t *testing.T) {
	for _, text := range []string{"10.0.0.0/8", "2a01:4f8::/33", "2a01:4f8::/128", "::ffff:10.0.0.0/96"} {
		if _, err := egress.New(egress.Config{NAT64Prefixes: []netip.Prefix{netip.MustParsePrefix(text)}}); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if _, err := egress.New(egress.Config{NAT64Prefixes: []netip.Prefix{{}}}); err == nil {
		t.Error("zero prefix: no error")
	}
	c := newClient(t, egress.Config{})
	if err := c.CheckAddr(netip.MustParseAddr("2a01:4f8:a00:1::")); err != nil {
		t.Errorf("without the setting: %v", err)
	}
}
