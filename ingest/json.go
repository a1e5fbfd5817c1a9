package ingest

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/postrider/postrider/internal/jsonscan"
)

// checkJSON returns what is wrong with doc as JSON and at which byte, "" if
// nothing is. The walkers below take only what passed it.
func checkJSON(doc []byte) (detail string) {
	if jsonscan.Valid(doc) {
		return ""
	}
	var raw json.RawMessage
	err := json.Unmarshal(doc, &raw)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return "malformed JSON at byte " + itoa(syntax.Offset) + ": " + syntax.Error()
	}
	return "malformed JSON"
}

// members calls yield for each member of a valid JSON object, in order and
// with duplicates, and reports false if doc is no object. Values are pieces of
// doc. An error of yield ends the walk and is returned.
func members(doc []byte, yield func(name string, value []byte) error) (object bool, err error) {
	i := skipSpace(doc, 0)
	if doc[i] != '{' {
		return false, nil
	}
	for i = skipSpace(doc, i+1); doc[i] != '}'; {
		end := skipValue(doc, i)
		name := memberName(doc[i:end])
		i = skipSpace(doc, skipSpace(doc, end)+1) // past the colon
		end = skipValue(doc, i)
		if err := yield(name, doc[i:end]); err != nil {
			return true, err
		}
		if i = skipSpace(doc, end); doc[i] == ',' {
			i = skipSpace(doc, i+1)
		}
	}
	return true, nil
}

// elements calls yield for each element of a valid JSON array until it returns
// false; elements reports false if doc is no array.
func elements(doc []byte, yield func(value []byte) bool) (array bool) {
	i := skipSpace(doc, 0)
	if doc[i] != '[' {
		return false
	}
	for i = skipSpace(doc, i+1); doc[i] != ']'; {
		end := skipValue(doc, i)
		if !yield(doc[i:end]) {
			return true
		}
		if i = skipSpace(doc, end); doc[i] == ',' {
			i = skipSpace(doc, i+1)
		}
	}
	return true
}

// memberName returns the name of a member; the usual ones need no memory.
func memberName(raw []byte) string {
	switch string(raw[1 : len(raw)-1]) {
	case "specversion":
		return "specversion"
	case "id":
		return "id"
	case "source":
		return "source"
	case "type":
		return "type"
	case "subject":
		return "subject"
	case "time":
		return "time"
	case "tenant":
		return "tenant"
	case "partitionkey":
		return "partitionkey"
	case "datacontenttype":
		return "datacontenttype"
	case "data":
		return "data"
	}
	return text(raw)
}

// text returns the value of a valid JSON string as a copy. Bytes that are not
// UTF-8 stay as they are, for validation to find.
func text(raw []byte) string {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return string(inner)
	}
	return s
}

func skipSpace(doc []byte, i int) int {
	for i < len(doc) && (doc[i] == ' ' || doc[i] == '\t' || doc[i] == '\n' || doc[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns the index after the value that begins at i.
func skipValue(doc []byte, i int) int {
	switch doc[i] {
	case '"':
		return skipString(doc, i)
	case '{', '[':
		return skipNested(doc, i)
	}
	for i < len(doc) {
		switch doc[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return i
		}
		i++
	}
	return i
}

func skipNested(doc []byte, i int) int {
	for depth := 0; ; {
		switch doc[i] {
		case '"':
			i = skipString(doc, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
		i++
	}
}

// skipString finds the quote that no backslash takes away: an even number of them
// stands before it.
func skipString(doc []byte, i int) int {
	for {
		i++
		i += bytes.IndexByte(doc[i:], '"')
		before := i
		for doc[before-1] == '\\' {
			before--
		}
		if (i-before)%2 == 0 {
			return i + 1
		}
	}
}
