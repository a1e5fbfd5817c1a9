package egress

import "net/netip"

// specialRange is a range that a webhook has no business in, and why.
type specialRange struct {
	prefix netip.Prefix
	class  AddrClass
}

// specialRanges4 are the IANA special-purpose IPv4 ranges, multicast and the
// former class E. Ranges that IANA calls globally reachable but that hold no
// ordinary host (AS112, AMT, PCP, TURN and 6to4 anycast) are reserved too.
func specialRanges4() []specialRange {
	return ranges(map[AddrClass][]string{
		AddrLoopback:  {"127.0.0.0/8"},
		AddrPrivate:   {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"},
		AddrCGNAT:     {"100.64.0.0/10"},
		AddrLinkLocal: {"169.254.0.0/16"},
		AddrMulticast: {"224.0.0.0/4"},
		AddrReserved: {
			"0.0.0.0/8",       // this network (RFC 791)
			"192.0.0.0/24",    // IETF protocol assignments (RFC 6890)
			"192.0.2.0/24",    // documentation (RFC 5737)
			"192.31.196.0/24", // AS112 (RFC 7535)
			"192.52.193.0/24", // AMT (RFC 7450)
			"192.88.99.0/24",  // 6to4 relay anycast (RFC 7526)
			"192.175.48.0/24", // AS112 (RFC 7534)
			"198.18.0.0/15",   // benchmarking (RFC 2544)
			"198.51.100.0/24", // documentation
			"203.0.113.0/24",  // documentation
			"240.0.0.0/4",     // reserved and limited broadcast (RFC 1112)
		},
	})
}

// specialRanges6 are the IANA special-purpose IPv6 ranges. Addresses that embed
// IPv4 are decoded before this table is asked, and what lies outside 2000::/3,
// the only space for global unicast, is reserved without being named here.
func specialRanges6() []specialRange {
	return ranges(map[AddrClass][]string{
		AddrLoopback:  {"::1/128"},
		AddrPrivate:   {"fc00::/7", "fec0::/10"}, // unique local (RFC 4193), site-local (RFC 3879)
		AddrLinkLocal: {"fe80::/10"},
		AddrMulticast: {"ff00::/8"},
		AddrReserved: {
			"2001::/23",         // IETF protocol assignments: ORCHID, benchmarking, AMT, PCP (RFC 2928)
			"2001:db8::/32",     // documentation (RFC 3849)
			"2620:4f:8000::/48", // AS112 (RFC 7534)
			"3fff::/20",         // documentation (RFC 9637)
		},
	})
}

// metadataAddrs serve credentials or configuration to the machine that asks.
func metadataAddrs() map[netip.Addr]bool {
	addrs := map[netip.Addr]bool{}
	for _, s := range []string{
		"169.254.169.254", "fd00:ec2::254", "fd20:ce::254", // most clouds; AWS, Google on IPv6
		"169.254.170.2", "169.254.170.23", "fd00:ec2::23", // AWS ECS tasks, EKS pod identity
		"100.100.100.200",              // Alibaba
		"192.0.0.192",                  // Oracle
		"168.63.129.16",                // Azure
		"169.254.42.42", "fd00:42::42", // Scaleway
		"fe80::a9fe:a9fe",               // OpenStack on IPv6
		"169.254.0.23", "169.254.10.10", // Tencent
	} {
		addrs[netip.MustParseAddr(s)] = true
	}
	return addrs
}

func ranges(byClass map[AddrClass][]string) []specialRange {
	var list []specialRange
	for class, prefixes := range byClass {
		for _, s := range prefixes {
			list = append(list, specialRange{netip.MustParsePrefix(s), class})
		}
	}
	return list
}
