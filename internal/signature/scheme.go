package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"
)

// algorithm is the hash of an HMAC.
type algorithm uint8

const (
	algorithmSHA1 algorithm = iota
	algorithmSHA256
	algorithmSHA512
	algorithms // how many there are
)

func algorithmOf(name string) (algorithm, error) {
	switch name {
	case "", "sha256":
		return algorithmSHA256, nil
	case "sha1":
		return algorithmSHA1, nil
	case "sha512":
		return algorithmSHA512, nil
	}
	return 0, errors.New("want sha256, sha1 or sha512")
}

// encoding is how a signature is written.
type encoding uint8

const (
	encodingHex encoding = iota
	encodingBase64
	encodingBase64URL
)

func encodingOf(name string) (encoding, error) {
	switch name {
	case "", "hex":
		return encodingHex, nil
	case "base64":
		return encodingBase64, nil
	case "base64url":
		return encodingBase64URL, nil
	}
	return 0, errors.New("want hex, base64 or base64url")
}

func (e encoding) append(dst, sum []byte) []byte {
	switch e {
	case encodingBase64:
		return base64.StdEncoding.AppendEncode(dst, sum)
	case encodingBase64URL:
		return base64.RawURLEncoding.AppendEncode(dst, sum)
	default:
		return hex.AppendEncode(dst, sum)
	}
}

// maxPooled bounds a buffer that is kept for the next ed25519 signature.
const maxPooled = 256 << 10

// Scheme is a Spec that is ready to sign; New makes one. It never changes.
type Scheme struct {
	standard        bool
	forms           []form
	timestampHeader string
	idHeader        string
	typeHeader      string
	buffers         *sync.Pool // of *[]byte: ed25519 wants what it signs in one piece
}

// form is one header with signatures.
type form struct {
	header        string // canonical
	algorithm     algorithm
	encoding      encoding
	prefix        string
	separator     string // "": the first key alone signs
	start         []piece
	before, after []piece // what is signed, around the body
}

func newScheme(spec Spec, forms ...form) *Scheme {
	return &Scheme{
		forms: forms, timestampHeader: http.CanonicalHeaderKey(spec.TimestampHeader),
		idHeader: http.CanonicalHeaderKey(spec.IDHeader), typeHeader: http.CanonicalHeaderKey(spec.TypeHeader),
	}
}

// table has the schemes that are the same for every endpoint.
type table struct {
	standard *Scheme
	presets  map[string]*Scheme
}

var shared = sync.OnceValue(func() table { //nolint:gochecknoglobals // immutable table
	spec := Spec{Header: HeaderSignature, Encoding: "base64", Prefix: version, Separator: " "}
	f, _ := spec.compile() // TestPresetsAreValid
	t := table{newScheme(spec, f), map[string]*Scheme{}}
	t.standard.standard, t.standard.buffers = true, &sync.Pool{New: func() any { return new([]byte) }}
	for _, name := range Schemes() {
		if specs, ok := preset(name); ok {
			forms := make([]form, len(specs))
			for i := range specs {
				forms[i], _ = specs[i].compile() // TestPresetsAreValid
			}
			t.presets[name] = newScheme(specs[0], forms...)
		}
	}
	return t
})

// Parse reads a secret for this scheme: as the function Parse does for Standard
// Webhooks; for all others the key is the secret's text itself, 8 to 128 bytes
// and printable. Errors wrap ErrSecret and never quote the secret.
func (s *Scheme) Parse(secret string) (Key, error) {
	if s.standard {
		return Parse(secret)
	}
	return parseText(secret)
}

// Parses returns nil if secrets of a kind can sign in this scheme, else why not.
func (s *Scheme) Parses(kind Kind) error {
	if kind == KindEd25519 && !s.standard {
		return errOnlyStandard
	}
	return nil
}

// Message is what is signed: the webhook id, the event's type, the time of the
// attempt, of which the whole seconds count, and the exact bytes that are sent.
type Message struct {
	ID, Type string
	Time     time.Time
	Body     []byte
}

// header is what Sign sets headers in. An http.Header is one.
type header interface {
	// Set gives the only value to a header; names are canonical.
	Set(name, value string)
	// Get returns the value of a header, "" if it is not there.
	Get(name string) string
}

// Sign sets the headers of a request: webhook-id, webhook-timestamp, those with
// the signatures, and those that the scheme asks for. The live keys come newest
// first. A header for the id or the type that is there already stays.
func (s *Scheme) Sign(h header, keys []Key, m Message) {
	stamp := Timestamp(m.Time)
	h.Set(HeaderID, m.ID)
	h.Set(HeaderTimestamp, stamp)
	for i := range s.forms {
		h.Set(s.forms[i].header, s.value(&s.forms[i], keys, &m, stamp))
	}
	if s.timestampHeader != "" {
		h.Set(s.timestampHeader, stamp)
	}
	if s.idHeader != "" && h.Get(s.idHeader) == "" {
		h.Set(s.idHeader, m.ID)
	}
	if s.typeHeader != "" && h.Get(s.typeHeader) == "" {
		h.Set(s.typeHeader, m.Type)
	}
}

// Headers returns the names of the headers that carry signatures and their time,
// webhook-id and webhook-timestamp apart: nothing else may set them.
func (s *Scheme) Headers() []string {
	var names []string
	for i := range s.forms {
		names = append(names, s.forms[i].header)
	}
	if s.timestampHeader != "" {
		names = append(names, s.timestampHeader)
	}
	return names
}

// value returns what stands in one header.
func (s *Scheme) value(f *form, keys []Key, m *Message, stamp string) string {
	var few [4 * (signatureLen + 1)]byte // four live keys need no second allocation
	value := appendPieces(few[:0], f.start, m.ID, stamp)
	if f.separator == "" && len(keys) > 1 {
		keys = keys[:1]
	}
	begin := len(value)
	for _, key := range keys {
		if key.m.public != nil && key.m.private == nil {
			continue
		}
		if len(value) > begin {
			value = append(value, f.separator...)
		}
		value = s.appendSignature(value, f, key, m, stamp)
	}
	return string(value)
}

// appendSignature appends the signature of one key with its prefix.
func (s *Scheme) appendSignature(dst []byte, f *form, key Key, m *Message, stamp string) []byte {
	if key.m.private == nil {
		return key.appendMAC(append(dst, f.prefix...), f, m, stamp)
	}
	s.signed(f, m, stamp, func(text []byte) {
		dst = base64.StdEncoding.AppendEncode(append(dst, versionA...), ed25519.Sign(key.m.private, text))
	})
	return dst
}

// signed calls fn with what is signed in one piece.
func (s *Scheme) signed(f *form, m *Message, stamp string, fn func([]byte)) {
	buffer := s.buffers.Get().(*[]byte)
	text := appendPieces((*buffer)[:0], f.before, m.ID, stamp)
	text = append(text, m.Body...)
	text = appendPieces(text, f.after, m.ID, stamp)
	fn(text)
	if cap(text) <= maxPooled {
		*buffer = text
		s.buffers.Put(buffer)
	}
}

func (k Key) appendMAC(dst []byte, f *form, m *Message, stamp string) []byte {
	h, pool := k.m.mac(f.algorithm)
	if pool != nil {
		defer pool.Put(h)
	}
	h.prefix = appendPieces(h.prefix[:0], f.before, m.ID, stamp)
	h.hash.Write(h.prefix)
	h.hash.Write(m.Body)
	if len(f.after) > 0 {
		h.prefix = appendPieces(h.prefix[:0], f.after, m.ID, stamp)
		h.hash.Write(h.prefix)
	}
	return f.encoding.append(dst, h.hash.Sum(h.sum[:0]))
}
