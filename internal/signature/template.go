package signature

import (
	"fmt"
	"strings"
)

// field is what stands at a place of a template.
type field uint8

const (
	fieldText field = iota
	fieldID
	fieldTimestamp
	fieldBody
)

// piece is a part of a template: a field, or the text if it is none.
type piece struct {
	field field
	text  string
}

// parseTemplate splits a text at its placeholders: {id}, {timestamp} and {body}.
func parseTemplate(text string) ([]piece, error) {
	var pieces []piece
	for text != "" {
		at := strings.IndexAny(text, "{}")
		if at < 0 {
			return append(pieces, piece{text: text}), nil
		}
		if at > 0 {
			pieces = append(pieces, piece{text: text[:at]})
		}
		end := strings.IndexByte(text[at:], '}')
		if text[at] == '}' || end < 0 {
			return nil, fmt.Errorf("has a %q without its other half", text[at])
		}
		name := text[at : at+end+1]
		switch name {
		case "{id}":
			pieces = append(pieces, piece{field: fieldID})
		case "{timestamp}":
			pieces = append(pieces, piece{field: fieldTimestamp})
		case "{body}":
			pieces = append(pieces, piece{field: fieldBody})
		default:
			return nil, fmt.Errorf("has the unknown placeholder %q: {id}, {timestamp} and {body} are known", name)
		}
		text = text[at+end+1:]
	}
	return pieces, nil
}

// appendPieces appends pieces without a body; stamp is the time in Unix seconds.
func appendPieces(dst []byte, pieces []piece, id, stamp string) []byte {
	for i := range pieces {
		text := pieces[i].text
		switch pieces[i].field {
		case fieldID:
			text = id
		case fieldTimestamp:
			text = stamp
		default:
		}
		dst = append(dst, text...)
	}
	return dst
}
