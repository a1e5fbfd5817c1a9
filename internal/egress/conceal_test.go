package egress_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/postrider/postrider/internal/egress"
)

// Whoever may set URLs must not be able to look up the operator's private zone: of a
// name only the class of its address is told, of a literal the address, too.
func TestNamesHideAddresses(t *testing.T) {
	r := &resolver{answers: map[string][][]netip.Addr{
		"private.example": {addrList("10.1.2.3")}, "translated.example": {addrList("64:ff9b::10.1.2.3")}, "metadata.example": {addrList("169.254.169.254")},
	}}
	c := newClient(t, egress.Config{Resolver: r})
	for _, tt := range []struct {
		host, want string
		shown      bool
	}{
		{"private.example", "private", false},
		{"translated.example", "embedded_v4", false},
		{"metadata.example", "metadata", false},
		{"10.1.2.3", "10.1.2.3 is not allowed: private", true},
		{"[64:ff9b::10.1.2.3]", "embedded_v4, by 10.1.2.3", true},
	} {
		texts := map[string]string{"saving": c.CheckHost(t.Context(), tt.host).Error(), "sending": send(t, c, "http://"+tt.host).Err.Detail}
		for when, text := range texts {
			shown := strings.Contains(text, "10.1.2.3") || strings.Contains(text, "64:ff9b") || strings.Contains(text, "169.254")
			if !strings.Contains(text, tt.want) || shown != tt.shown {
				t.Errorf("%s, %s: %q", tt.host, when, text)
			}
		}
	}
}

// An address that only the operator's setting allows is not told either when nobody
// answers there.
func TestRefusedNamesHideAddresses(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	c := newClient(t, local(egress.Config{Resolver: always("127.0.0.1")}))
	for host, shown := range map[string]bool{"hook.example": false, "127.0.0.1": true} {
		result := send(t, c, "http://"+host+":"+portOf(t, closed.Addr().String()))
		wantClass(t, result, egress.ClassConnectRefused)
		if text := result.Err.Detail; strings.Contains(text, "127.0.0.1") != shown || !strings.Contains(text, "connection refused") {
			t.Errorf("%s: %q", host, text)
		}
	}
}
