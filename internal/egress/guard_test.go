package egress_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/postrider/postrider/internal/egress"
)

func TestCheckAddr(t *testing.T) {
	c := newClient(t, egress.Config{})
	tests := map[egress.AddrClass]string{
		"": `1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
			169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.167.255.255 192.169.0.0
			198.17.255.255 198.20.0.0 223.255.255.255 2606:4700::1111 2a00:1450::1 2001:200::1 2003::1
			::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 64:ff9b:1:808:8:800:: 2002:808:808::1
			2001:0:808:808:0:0:f7f7:f7f7 2606:4700::5efe:8.8.8.8`,
		egress.AddrLoopback:  "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1 ::1%lo",
		egress.AddrPrivate:   "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.1 192.168.255.255 ::ffff:10.0.0.1 fc00::1 fd12::1 fec0::1",
		egress.AddrCGNAT:     "100.64.0.0 100.127.255.255",
		egress.AddrLinkLocal: "169.254.0.1 169.254.255.255 fe80::1 fe80::1%eth0 febf::1 ::ffff:169.254.1.1",
		egress.AddrMulticast: "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
		egress.AddrReserved: `0.0.0.0 0.1.2.3 192.0.0.1 192.0.0.9 192.0.2.1 192.31.196.1 192.52.193.1 192.88.99.1 192.175.48.1
			198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.1 240.0.0.1 255.255.255.255
			:: ::8.8.8.8 ::ffff:0:8.8.8.8 100::1 100:0:0:1::1 2001:1::1 2001:2::1 2001:3::1 2001:4:112::1
			2001:10::1 2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1 2620:4f:8000::1 3fff::1 5f00::1 4000::1
			64:ff9b:2::1 200::1 2001:db8::5efe:8.8.8.8`,
		egress.AddrMetadata: `169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 192.0.0.192 168.63.129.16 169.254.42.42
			fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 fe80::a9fe:a9fe fe80::a9fe:a9fe%eth0 ::ffff:169.254.169.254 ::169.254.169.254
			64:ff9b::169.254.169.254 64:ff9b:1::168.63.129.16 2002:a9fe:a9fe::1 2001:0:a9fe:a9fe::1
			2001:0:808:808:0:0:5601:5601 fe80::5efe:169.254.169.254 ::ffff:0:169.254.169.254`,
		egress.AddrEmbeddedV4: `::127.0.0.1 ::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::100.64.0.1 64:ff9b::0.0.0.0
			64:ff9b:1::10.0.0.1 64:ff9b:1:abcd::10.0.0.1 64:ff9b:1:a00:0:100:: 64:ff9b:1:a:0:1:: 64:ff9b:1:0:a:0:100:0
			2002:7f00:1::1 2002:a00:1::1 2002:c0a8:101::1 2002:808:808::5efe:10.0.0.1
			2001:0:a00:1:0:0:f7f7:f7f7 2001:0:808:808:0:0:f5ff:fffe
			2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:192.168.0.1 fe80::5efe:10.0.0.1 ::ffff:0:10.0.0.1`,
	}
	for want, addrs := range tests {
		for text := range strings.FieldsSeq(addrs) {
			if got := classOf(t, c.CheckAddr(netip.MustParseAddr(text))); got != want {
				t.Errorf("%s: class %q, want %q", text, got, want)
			}
		}
	}
	if got := classOf(t, c.CheckAddr(netip.Addr{})); got != egress.AddrReserved {
		t.Errorf("zero address: class %q", got)
	}
}

func TestAllowCIDRs(t *testing.T) {
	tests := []struct {
		name, cidr, addr string
		want             egress.AddrClass
	}{
		{"exact", "10.1.2.3/32", "10.1.2.3", ""},
		{"beside", "10.1.2.3/32", "10.1.2.4", egress.AddrPrivate},
		{"unmasked", "10.1.2.3/8", "10.200.0.1", ""},
		{"mapped address", "10.0.0.0/8", "::ffff:10.0.0.1", ""},
		{"mapped range", "::ffff:10.0.0.0/104", "10.9.9.9", ""},
		{"loopback", "127.0.0.0/8", "127.0.0.1", ""},
		{"IPv6", "fd00::/8", "fd12::1", ""},
		{"zone", "fe80::/10", "fe80::1%eth0", ""},
		{"embedded in NAT64", "10.0.0.0/8", "64:ff9b::10.0.0.1", ""},
		{"embedded in local NAT64", "10.0.0.0/8", "64:ff9b:1::10.0.0.1", ""},
		{"embedded in 6to4", "10.0.0.0/8", "2002:a00:1::1", ""},
		{"embedded, compatible", "10.0.0.0/8", "::10.0.0.1", ""},
		{"embedded in ISATAP of a public prefix", "10.0.0.0/8", "2606:4700::5efe:10.0.0.1", ""},
		{"embedded in ISATAP of a blocked prefix", "10.0.0.0/8", "fe80::5efe:10.0.0.1", egress.AddrLinkLocal},
		{"one of two in Teredo", "10.0.0.0/8", "2001:0:a00:1:0:0:80ff:fffe", egress.AddrEmbeddedV4},
		{"outer NAT64", "64:ff9b::/96", "64:ff9b::10.0.0.1", ""},
		{"everything, metadata", "0.0.0.0/0", "169.254.169.254", egress.AddrMetadata},
		{"exact metadata", "169.254.169.254/32", "169.254.169.254", egress.AddrMetadata},
		{"exact metadata on IPv6", "fd00:ec2::254/128", "fd00:ec2::254", egress.AddrMetadata},
		{"metadata in allowed NAT64", "64:ff9b::/96", "64:ff9b::169.254.169.254", egress.AddrMetadata},
		{"metadata in allowed link-local", "fe80::/10", "fe80::a9fe:a9fe%eth0", egress.AddrMetadata},
		{"link-local beside metadata", "169.254.0.0/16", "169.254.1.1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, allowing(tt.cidr))
			if got := classOf(t, c.CheckAddr(netip.MustParseAddr(tt.addr))); got != tt.want {
				t.Errorf("class %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNewRefusesInvalidConfig(t *testing.T) {
	for name, cfg := range map[string]egress.Config{
		"zero prefix":  {AllowCIDRs: []netip.Prefix{{}}},
		"timeout":      {Timeout: -1},
		"connect":      {ConnectTimeout: -1},
		"response":     {MaxResponse: -1},
		"drain":        {MaxDrain: -1},
		"idle":         {MaxIdleConns: -1},
		"idle a host":  {MaxIdlePerHost: -1},
		"idle timeout": {IdleTimeout: -1},
	} {
		if _, err := egress.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func drawV4(t *rapid.T) [4]byte {
	b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")
	if rapid.Bool().Draw(t, "special") {
		copy(b, rapid.SampledFrom([][]byte{{10}, {127}, {169, 254}, {192, 168}, {172, 16}, {100, 64}, {224}, {0}}).Draw(t, "prefix"))
	}
	return [4]byte(b)
}

// Every embedding of an IPv4 address that is blocked is blocked.
func TestEmbeddingsHideNothing(t *testing.T) {
	c := newClient(t, egress.Config{})
	rapid.Check(t, func(t *rapid.T) {
		v := drawV4(t)
		plain := c.CheckAddr(netip.AddrFrom4(v)) != nil
		low := [16]byte{12: v[0], 13: v[1], 14: v[2], 15: v[3]}
		with := func(prefix ...byte) [16]byte {
			b := low
			copy(b[:12], prefix)
			return b
		}
		embeddings := map[string][16]byte{
			"mapped": with(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff),
			"nat64":  with(0, 0x64, 0xff, 0x9b),
			"local":  with(0, 0x64, 0xff, 0x9b, 0, 1),
			"6to4":   {0x20, 2, v[0], v[1], v[2], v[3], 15: 1},
			"server": {0x20, 1, 0, 0, v[0], v[1], v[2], v[3], 0, 0, 0, 0, 0xf7, 0xf7, 0xf7, 0xf7},
			"client": {0x20, 1, 0, 0, 8, 8, 8, 8, 0, 0, 0, 0, ^v[0], ^v[1], ^v[2], ^v[3]},
			"isatap": with(0x26, 6, 0x47, 0, 0, 0, 0, 0, 0, 0, 0x5e, 0xfe),
		}
		for name, b := range embeddings {
			got := c.CheckAddr(netip.AddrFrom16(b)) != nil
			// The local layout of x.0.0.0 can be read in two ways: it may be blocked more.
			if ambiguous := name == "local" && v[1] == 0 && v[2] == 0 && v[3] == 0; got != plain && !ambiguous || plain && !got {
				t.Fatalf("%s of %v: blocked %v, plain %v", name, v, got, plain)
			}
		}
		if low != ([16]byte{}) && c.CheckAddr(netip.AddrFrom16(low)) == nil {
			t.Fatalf("compatible %v is allowed", v)
		}
	})
}

// Nothing that the standard library calls special is ever allowed.
func FuzzCheckAddr(f *testing.F) {
	for _, text := range []string{"127.0.0.1", "fe80::1", "64:ff9b::a00:1", "2002:a00:1::", "::"} {
		f.Add(netip.MustParseAddr(text).AsSlice())
	}
	c, err := egress.New(egress.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, _ := netip.AddrFromSlice(raw)
		if c.CheckAddr(addr) != nil {
			return
		}
		addr = addr.Unmap()
		if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() {
			t.Fatalf("%s is allowed", addr)
		}
	})
}
