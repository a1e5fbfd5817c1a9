package egress

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
)

// Numbers of SOCKS5 (RFC 1928) and its passwords (RFC 1929).
const (
	socksVersion      = 5
	socksNoAuth       = 0
	socksPassword     = 2
	socksNone         = 0xff
	socksAuthVersion  = 1
	socksConnect      = 1
	socksIPv4         = 1
	socksDomain       = 3
	socksIPv6         = 4
	socksReplyHeader  = 4 // version, reply, reserved, kind of the address
	socksPortBytes    = 2
	socksGeneralError = 1
)

var errSocks = errors.New("answer is not SOCKS5")

// socks5 asks a SOCKS5 proxy for a connection to an IP address: a name would be
// looked up again, by the proxy, after it was checked here.
type socks5 struct {
	user, password string
	auth           bool
}

func (p socks5) open(s *sock, target netip.AddrPort) error {
	if err := p.greet(s); err != nil {
		return err
	}
	b := []byte{socksVersion, socksConnect, 0}
	if target.Addr().Is4() {
		b = append(b, socksIPv4)
	} else {
		b = append(b, socksIPv6)
	}
	b = append(b, target.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, target.Port())
	if _, err := s.Write(b); err != nil {
		return err
	}
	return readSocksReply(s)
}

// greet agrees on how this side shows who it is, and does so.
func (p socks5) greet(s *sock) error {
	methods := []byte{socksVersion, 1, socksNoAuth}
	if p.auth {
		methods = []byte{socksVersion, 2, socksNoAuth, socksPassword}
	}
	if _, err := s.Write(methods); err != nil {
		return err
	}
	var choice [2]byte
	if _, err := io.ReadFull(s, choice[:]); err != nil {
		return err
	}
	switch {
	case choice[0] != socksVersion:
		return errSocks
	case choice[1] == socksNoAuth:
		return nil
	case choice[1] == socksNone, choice[1] == socksPassword && !p.auth:
		return errProxyCredentials("")
	case choice[1] != socksPassword:
		return errSocks
	}
	b := append([]byte{socksAuthVersion, byte(len(p.user))}, p.user...) //nolint:gosec // at most 255, checked
	b = append(b, byte(len(p.password)))                                //nolint:gosec // the same
	b = append(b, p.password...)
	if _, err := s.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(s, choice[:]); err != nil {
		return err
	}
	if choice[1] != 0 {
		return errProxyCredentials("")
	}
	return nil
}

func readSocksReply(r io.Reader) error {
	var head [socksReplyHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if head[0] != socksVersion {
		return errSocks
	}
	if head[1] != 0 {
		return &refusedError{"the proxy could not connect: " + socksReason(head[1])}
	}
	rest := socksPortBytes
	switch head[3] {
	case socksIPv4:
		rest += 4
	case socksIPv6:
		rest += 16
	case socksDomain:
		var length [1]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return err
		}
		rest += int(length[0])
	default:
		return errSocks
	}
	_, err := io.ReadFull(r, make([]byte, rest))
	return err
}

func socksReason(code byte) string {
	reasons := [...]string{
		socksGeneralError: "general failure", "not allowed", "network unreachable", "host unreachable", "connection refused",
		"no answer in time", "command not supported", "kind of address not supported",
	}
	if code == 0 || int(code) >= len(reasons) {
		return "unknown reason"
	}
	return reasons[code]
}
