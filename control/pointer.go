package control

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// locator turns huma's locations ("body.retry.schedule[3]") into JSON pointers
// (RFC 6901). Such a location does not say where a member's name ends if names
// have dots or brackets, so it is read along the body that it is about.
type locator struct{ body any }

func newLocator(body []byte) locator {
	var l locator
	_ = json.Unmarshal(body, &l.body) // malformed: the pointer is the whole body
	return l
}

// fault returns the fault for one of huma's details. A fault of a parameter has
// no pointer: its detail names the parameter.
func (l locator) fault(d *huma.ErrorDetail) fault {
	rest, inBody := strings.CutPrefix(d.Location, "body")
	if !inBody {
		place, name, _ := strings.Cut(d.Location, ".")
		return fault{detail: place + " parameter " + name + ": " + d.Message}
	}
	pointer, ok := follow(l.body, rest)
	if !ok {
		pointer = plainPointer(rest)
	}
	if name, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		if name, ok = strings.CutSuffix(name, " to be present"); ok {
			return fault{pointer: pointer + "/" + escape(name), detail: "is required"}
		}
	}
	return fault{pointer: pointer, detail: d.Message}
}

// follow finds the member or element of v that the location names.
func follow(v any, location string) (string, bool) {
	if location == "" {
		return "", true
	}
	switch v := v.(type) {
	case map[string]any:
		rest, ok := strings.CutPrefix(location, ".")
		if !ok {
			return "", false
		}
		for name, member := range v {
			after, ok := strings.CutPrefix(rest, name)
			if !ok || after != "" && after[0] != '.' && after[0] != '[' {
				continue
			}
			if tail, ok := follow(member, after); ok {
				return "/" + escape(name) + tail, true
			}
		}
	case []any:
		index, after, ok := strings.Cut(strings.TrimPrefix(location, "["), "]")
		i, err := strconv.Atoi(index)
		if !ok || err != nil || i < 0 || i >= len(v) {
			return "", false
		}
		if tail, ok := follow(v[i], after); ok {
			return "/" + index + tail, true
		}
	}
	return "", false
}

// plainPointer reads a location that names no member of the body, for example
// because the member's case differs.
func plainPointer(location string) string {
	replaced := strings.NewReplacer("~", "~0", "/", "~1", "[", "/", "]", "", ".", "/").Replace(location)
	return strings.TrimSuffix(replaced, "/")
}

func escape(name string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}
