package http1

// tokenBytes has a bit for each byte of a token (RFC 9110, section 5.6.2).
//
//nolint:gochecknoglobals // a table that nobody changes
var tokenBytes = func() (table [256]bool) {
	for c := range table {
		table[c] = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		table[c] = true
	}
	return table
}()

// IsToken reports whether s may be a method or the name of a header field.
func IsToken(s string) bool {
	for i := range len(s) {
		if !tokenBytes[s[i]] {
			return false
		}
	}
	return s != ""
}

// IsValue reports whether s may be the value of a header field: no control
// characters but the tab.
func IsValue(s string) bool {
	for i := range len(s) {
		if !isValueByte(s[i]) {
			return false
		}
	}
	return true
}

// isFieldName is more lenient than IsToken: some servers put blanks into names,
// which then are names that nobody knows.
func isFieldName(name []byte) bool {
	for _, c := range name {
		if !tokenBytes[c] && c != ' ' {
			return false
		}
	}
	return len(name) > 0
}

func isFieldValue(value []byte) bool {
	for _, c := range value {
		if !isValueByte(c) {
			return false
		}
	}
	return true
}

func isValueByte(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }
