package match

import (
	"errors"
	"fmt"
	"strings"
)

// MaxPattern is the longest type pattern in bytes.
const MaxPattern = 255

const everything = "*"

// CheckPattern reports what is wrong with a type pattern, or nil. A pattern is an
// exact event type ("order.paid"), a prefix of whole segments ("order.*" matches
// "order.paid" and "order.paid.eu", not "order" and not "orders.x"), or "*" for all.
// Allowed are letters, digits and "_ . : / -", at most MaxPattern bytes, no empty
// segment, and "*" only as the last segment.
func CheckPattern(p string) error {
	switch {
	case p == "":
		return errors.New("type pattern is empty")
	case len(p) > MaxPattern:
		return fmt.Errorf("type pattern is %d bytes long, at most %d are allowed", len(p), MaxPattern)
	case p == everything:
		return nil
	}
	body, _ := prefixOf(p)
	for i := range len(body) {
		if !patternByte(body[i]) {
			if body[i] == '*' {
				return fmt.Errorf(`type pattern %q: "*" is only allowed alone or as the last segment`, p)
			}
			return fmt.Errorf("type pattern %q: character %q at byte %d is not allowed", p, body[i], i)
		}
	}
	if body == "" || body[0] == '.' || body[len(body)-1] == '.' || strings.Contains(body, "..") {
		return fmt.Errorf("type pattern %q has an empty segment", p)
	}
	return nil
}

// prefixOf returns the part before ".*" and whether the pattern is a prefix.
func prefixOf(p string) (string, bool) { return strings.CutSuffix(p, ".*") }

func patternByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return strings.IndexByte("_.:/-", c) >= 0
	}
}
