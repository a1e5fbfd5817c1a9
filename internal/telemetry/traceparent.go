package telemetry

import "go.opentelemetry.io/otel/trace"

const (
	traceparentLen = 55  // 00-<32 trace id>-<16 span id>-<2 flags>
	tracestateMax  = 512 // what W3C Trace Context asks everyone to hand on
)

// SpanContextFrom returns the remote span context of the two W3C Trace Context
// (level 2) headers, the zero SpanContext if traceparent is missing or not
// valid. A tracestate that is not valid, or longer than 512 bytes, is dropped
// alone. Without a tracestate nothing is allocated.
func SpanContextFrom(traceparent, tracestate string) trace.SpanContext {
	return spanContext(traceparent, tracestate)
}

// SpanContextFromBytes is SpanContextFrom for the values of Kafka headers,
// which it does not keep.
func SpanContextFromBytes(traceparent, tracestate []byte) trace.SpanContext {
	return spanContext(traceparent, tracestate)
}

// Traceparent returns the W3C traceparent header of sc, "" if sc is not valid.
func Traceparent(sc trace.SpanContext) string {
	if !sc.IsValid() {
		return ""
	}
	var buf [traceparentLen]byte
	return string(AppendTraceparent(buf[:0], sc))
}

// AppendTraceparent appends the W3C traceparent header of sc to dst, nothing if
// sc is not valid.
func AppendTraceparent(dst []byte, sc trace.SpanContext) []byte {
	if !sc.IsValid() {
		return dst
	}
	traceID, spanID := sc.TraceID(), sc.SpanID()
	dst = append(dst, "00-"...)
	dst = appendHex(dst, traceID[:])
	dst = append(dst, '-')
	dst = appendHex(dst, spanID[:])
	dst = append(dst, '-')
	flags := [1]byte{byte(sc.TraceFlags() & (trace.FlagsSampled | trace.FlagsRandom))}
	return appendHex(dst, flags[:])
}

func spanContext[T string | []byte](traceparent, tracestate T) trace.SpanContext {
	cfg, ok := parseTraceparent(traceparent)
	if !ok {
		return trace.SpanContext{}
	}
	if n := len(tracestate); n > 0 && n <= tracestateMax {
		// On an error the state is empty; the specification wants the parent
		// kept then.
		cfg.TraceState, _ = trace.ParseTraceState(string(tracestate))
	}
	return trace.NewSpanContext(cfg)
}

func parseTraceparent[T string | []byte](h T) (cfg trace.SpanContextConfig, ok bool) {
	if len(h) < traceparentLen || h[2] != '-' || h[35] != '-' || h[52] != '-' {
		return cfg, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], h[:2]) || !decodeHex(cfg.TraceID[:], h[3:35]) ||
		!decodeHex(cfg.SpanID[:], h[36:52]) || !decodeHex(flags[:], h[53:55]) {
		return cfg, false
	}
	known := trace.FlagsSampled | trace.FlagsRandom
	switch version[0] {
	case 0x00: // fixed length, no reserved flag
		if len(h) != traceparentLen || trace.TraceFlags(flags[0])&^known != 0 {
			return cfg, false
		}
	case 0xff:
		return cfg, false
	default: // a later version may only add fields
		if len(h) > traceparentLen && h[traceparentLen] != '-' {
			return cfg, false
		}
	}
	cfg.TraceFlags = trace.TraceFlags(flags[0]) & known
	cfg.Remote = true
	return cfg, cfg.TraceID.IsValid() && cfg.SpanID.IsValid()
}

// decodeHex fills dst from src, which is twice as long; only lower case is
// valid in these headers.
func decodeHex[T string | []byte](dst []byte, src T) bool {
	for i := range dst {
		hi, lo := nibble(src[2*i]), nibble(src[2*i+1])
		if hi|lo > 0x0f {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	default:
		return 0xff
	}
}

func appendHex(dst, src []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range src {
		dst = append(dst, digits[b>>4], digits[b&0x0f])
	}
	return dst
}
