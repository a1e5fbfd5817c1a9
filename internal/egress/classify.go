package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"

	"github.com/postrider/postrider/internal/egress/http1"
)

// Class says in which way an exchange failed. The set is closed: a class is also
// the name of an outcome and a metric label.
type Class string

// The classes of errors.
const (
	ClassBlockedAddress  Class = "blocked_address"            // the guard refused the address or the port
	ClassDNS             Class = "dns"                        // the name could not be looked up
	ClassConnectRefused  Class = "connect_refused"            // nobody listens
	ClassConnectTimeout  Class = "connect_timeout"            // no answer to the connect
	ClassConnect         Class = "connect"                    // any other failure to connect
	ClassProxy           Class = "proxy"                      // the operator's proxy failed, or refused to connect
	ClassTLS             Class = "tls"                        // the handshake failed or took too long
	ClassTimeout         Class = "timeout"                    // connected, but the exchange did not end in time
	ClassReset           Class = "reset"                      // the connection ended before the response did
	ClassProtocol        Class = "protocol"                   // the response is not HTTP
	ClassHeadersTooLarge Class = "response_headers_too_large" // over 64 KiB
	ClassCanceled        Class = "canceled"                   // the caller's context was cancelled
	ClassInvalidRequest  Class = "invalid_request"            // a header, the method or the URL cannot be sent
	ClassLocal           Class = "local"                      // this machine is out of files, ports or memory: not the endpoint's doing
)

const maxDetail = 200

var errSwitched = errors.New("endpoint switched protocols")

// Error is the failure of an exchange.
type Error struct {
	// Class is one of the classes above.
	Class Class
	// Timeout reports whether time ran out, in whatever phase.
	Timeout bool
	// Detail says more, in at most 200 bytes; safe to show to the endpoint's owner.
	Detail string

	cause error
}

// Error returns class and detail.
func (e *Error) Error() string { return string(e.Class) + ": " + e.Detail }

// Unwrap returns the cause for errors.As; its text is not safe to show.
func (e *Error) Unwrap() error { return e.cause }

// stageError says in which phase a dial failed.
type stageError struct {
	phase phase
	err   error
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// classify turns an error of an exchange into an Error. The order matters: what
// is certain comes first, texts of net/http, where it has no types, last.
func classify(caller context.Context, err error) *Error {
	e := &Error{cause: err}
	var blocked *BlockedError
	var invalid invalidError
	var proxy *proxyError
	var stage *stageError
	switch {
	case errors.As(err, &blocked):
		e.Class, e.Detail = ClassBlockedAddress, blocked.Error()
	case errors.As(err, &invalid):
		e.Class, e.Detail = ClassInvalidRequest, invalid.Error()
	case errors.Is(caller.Err(), context.Canceled):
		e.Class, e.Detail = ClassCanceled, "cancelled by the sender"
	case isLocal(err):
		e.Class, e.Detail = ClassLocal, ioText(err)
	case errors.As(err, &proxy):
		e.Class, e.Detail, e.Timeout = ClassProxy, proxy.detail, isTimeout(err)
	case errors.As(err, &stage):
		e.atStage(stage)
	case isTimeout(err):
		e.Class, e.Timeout, e.Detail = ClassTimeout, true, "no complete response in time"
	default:
		e.Class, e.Detail = exchangeFailed(err)
	}
	e.Detail = cleanText(e.Detail)
	return e
}

// atStage names the class of what failed before there was a connection.
func (e *Error) atStage(s *stageError) {
	switch e.Timeout = isTimeout(s.err); s.phase {
	case phaseResolve:
		e.Class, e.Detail = ClassDNS, dnsText(s.err)
	case phaseConnect:
		e.connectFailed(s.err)
	case phaseHandshake:
		e.Class, e.Detail = ClassTLS, ioText(s.err)
		if e.Timeout {
			e.Detail = "no end of the TLS handshake in time"
		}
	default:
		e.Class, e.Detail = ClassTimeout, "no time left to begin"
	}
}

func (e *Error) connectFailed(err error) {
	e.Detail = ioText(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.Class, e.Detail = ClassConnectTimeout, "no connection in time"
	case isTimeout(err), errors.Is(err, syscall.ETIMEDOUT):
		e.Class, e.Timeout = ClassConnectTimeout, true
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Class = ClassConnectRefused
	default:
		e.Class = ClassConnect
	}
}

// exchangeFailed classifies what went wrong after the connect. Texts of net/http
// about malformed responses are not handed on: they quote what the endpoint sent,
// which may be an echo of the request.
func exchangeFailed(err error) (Class, string) {
	text := err.Error()
	var malformed http1.MalformedError
	switch {
	case errors.As(err, &malformed), errors.Is(err, errSwitched):
		return ClassProtocol, text
	case strings.HasPrefix(text, "net/http: invalid "):
		return ClassInvalidRequest, strings.TrimPrefix(text, "net/http: ")
	case isAlert(err):
		return ClassTLS, ioText(err)
	case errors.Is(err, http1.ErrTooLarge):
		return ClassHeadersTooLarge, "response headers over 64 KiB, or more than 5 interim responses"
	case strings.Contains(text, "response headers exceeded"), strings.Contains(text, "header list larger"), strings.Contains(text, "header list too large"),
		strings.Contains(text, "too many 1xx"):
		return ClassHeadersTooLarge, "response headers over 64 KiB"
	case isReset(err, text):
		return ClassReset, "the connection was closed before the response was complete"
	case strings.HasPrefix(text, "http2: "), strings.HasPrefix(text, "stream error"), strings.HasPrefix(text, "connection error"):
		return ClassProtocol, text
	}
	return ClassProtocol, "malformed response"
}

// isAlert reports whether the other end of TLS said what it does not like.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func isReset(err error, text string) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, net.ErrClosed) {
		return true
	}
	return strings.Contains(text, "server closed idle connection") ||
		strings.HasPrefix(text, noResend) || text == noRewind ||
		strings.Contains(text, "client connection lost") ||
		strings.Contains(text, "GOAWAY") ||
		strings.Contains(text, "client connection force closed") ||
		strings.HasPrefix(text, "stream error") && strings.Contains(text, "received from peer")
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func isLocal(err error) bool {
	for _, errno := range [...]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// ioText leaves out the address of this end, which net.OpError would show.
func ioText(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op == "remote error" || op.Op == "local error" {
		return err.Error()
	}
	if op.Op == "dial" && op.Addr != nil {
		return op.Addr.String() + ": " + op.Err.Error()
	}
	return op.Err.Error()
}

// dnsText leaves out the address of our name server, which net.DNSError may hold
// in two of its fields.
func dnsText(err error) string {
	var dns *net.DNSError
	switch found := errors.As(err, &dns); {
	case found && dns.IsNotFound:
		return "no such host: " + dns.Name
	case isTimeout(err):
		return "no answer to the look-up in time"
	}
	return "the look-up failed"
}

// cleanText makes s one printable line of bounded length.
func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "")
	}
	return s
}
