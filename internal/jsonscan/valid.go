// Package jsonscan tells whether bytes are one JSON document, several times
// faster than encoding/json does and with the same answer.
//
// In: bytes that anybody may have sent. Out: yes or no. It allocates nothing but
// stack (about 1 MB for a document that is nested as deeply as is allowed), keeps
// nothing and never blocks.
package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

// MaxDepth is how deeply objects and arrays may be nested, as in encoding/json.
const MaxDepth = 10_000

// invalid stands for "not JSON" where an index is wanted.
const invalid = -1

// Valid reports whether doc is one valid JSON document (RFC 8259), exactly as
// encoding/json's Valid does: strings may hold bytes that are not UTF-8.
func Valid(doc []byte) bool {
	i := value(doc, space(doc, 0), 0)
	return i >= 0 && space(doc, i) == len(doc)
}

// value returns the index after the value that begins at i, or invalid.
func value(doc []byte, i, depth int) int {
	if i >= len(doc) {
		return invalid
	}
	switch c := doc[i]; {
	case c == '"':
		return text(doc, i+1)
	case c == '{' && depth < MaxDepth:
		return object(doc, i+1, depth+1)
	case c == '[' && depth < MaxDepth:
		return array(doc, i+1, depth+1)
	case c == 't':
		return literal(doc, i, "true")
	case c == 'f':
		return literal(doc, i, "false")
	case c == 'n':
		return literal(doc, i, "null")
	case c == '-' || isDigit(c):
		return number(doc, i)
	}
	return invalid
}

// object returns the index after an object's closing brace; i is behind the
// opening one.
func object(doc []byte, i, depth int) int {
	i = space(doc, i)
	if i < len(doc) && doc[i] == '}' {
		return i + 1
	}
	for i < len(doc) && doc[i] == '"' {
		if i = text(doc, i+1); i < 0 {
			return invalid
		}
		if i = space(doc, i); i >= len(doc) || doc[i] != ':' {
			return invalid
		}
		if i = value(doc, space(doc, i+1), depth); i < 0 {
			return invalid
		}
		if i = space(doc, i); i >= len(doc) {
			return invalid
		}
		switch doc[i] {
		case '}':
			return i + 1
		case ',':
			i = space(doc, i+1)
		default:
			return invalid
		}
	}
	return invalid
}

// array is the same for an array.
func array(doc []byte, i, depth int) int {
	i = space(doc, i)
	if i < len(doc) && doc[i] == ']' {
		return i + 1
	}
	for {
		if i = value(doc, i, depth); i < 0 {
			return invalid
		}
		if i = space(doc, i); i >= len(doc) {
			return invalid
		}
		switch doc[i] {
		case ']':
			return i + 1
		case ',':
			i = space(doc, i+1)
		default:
			return invalid
		}
	}
}

// text returns the index after a string's closing quote; i is behind the opening
// one. It looks at eight bytes at once.
func text(doc []byte, i int) int {
	for {
		for i+8 <= len(doc) {
			stop := stops(binary.LittleEndian.Uint64(doc[i:]))
			if stop != 0 {
				i += bits.TrailingZeros64(stop) / 8
				break
			}
			i += 8
		}
		if i >= len(doc) {
			return invalid
		}
		switch c := doc[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i = escape(doc, i+1); i < 0 {
				return invalid
			}
		case c < ' ':
			return invalid
		default:
			i++
		}
	}
}

// stops marks the first byte of eight that is a quote, a backslash or a control
// character: the lowest bit that is set is in it. (Higher ones may be wrong: the
// subtractions borrow.)
func stops(x uint64) uint64 {
	const ones = 0x0101010101010101
	quote := x ^ ones*'"'
	slash := x ^ ones*'\\'
	return ((x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash) & (ones << 7)
}

// escape returns the index after an escape; i is behind the backslash.
func escape(doc []byte, i int) int {
	if i >= len(doc) {
		return invalid
	}
	switch doc[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if i+4 >= len(doc) {
			return invalid
		}
		for _, c := range doc[i+1 : i+5] {
			if !isDigit(c) && (c|' ' < 'a' || c|' ' > 'f') {
				return invalid
			}
		}
		return i + 5
	}
	return invalid
}

// number returns the index after the number that begins at i.
func number(doc []byte, i int) int {
	if doc[i] == '-' {
		i++
	}
	switch {
	case i >= len(doc) || !isDigit(doc[i]):
		return invalid
	case doc[i] == '0':
		i++
	default:
		i = digits(doc, i)
	}
	if i < len(doc) && doc[i] == '.' {
		start := i + 1
		if i = digits(doc, start); i == start {
			return invalid
		}
	}
	if i < len(doc) && doc[i]|' ' == 'e' {
		i++
		if i < len(doc) && (doc[i] == '+' || doc[i] == '-') {
			i++
		}
		start := i
		if i = digits(doc, start); i == start {
			return invalid
		}
	}
	return i
}

func literal(doc []byte, i int, want string) int {
	end := i + len(want)
	if end > len(doc) || string(doc[i:end]) != want {
		return invalid
	}
	return end
}

func digits(doc []byte, i int) int {
	for i < len(doc) && isDigit(doc[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func space(doc []byte, i int) int {
	for i < len(doc) && (doc[i] == ' ' || doc[i] == '\t' || doc[i] == '\n' || doc[i] == '\r') {
		i++
	}
	return i
}
