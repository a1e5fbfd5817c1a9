package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/postrider/postrider/schemas"
)

// secretBytes is the number of random bytes in a token.
const secretBytes = 32

// maxToken bounds a token's length, in bytes; ours have 73.
const maxToken = 256

// NewToken makes an API key: its id ("key_…"), the token "<id>.<secret>" that
// is shown once, and the hash that registry.Key keeps.
func NewToken() (id, token, hash string) {
	id = schemas.NewID(schemas.PrefixKey)
	var secret [secretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails: it ends the process instead
	token = id + "." + base64.RawURLEncoding.EncodeToString(secret[:])
	return id, token, Hash(token)
}

// Hash returns the SHA-256 of a token, in lower case hex.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Bearer returns the token of an Authorization header (RFC 6750, section 2.1).
// It reports false if the header is empty or of another scheme.
func Bearer(header string) (token string, ok bool) {
	scheme, token, ok := strings.Cut(header, " ")
	token = strings.Trim(token, " ")
	if !ok || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return token, true
}

// keyID returns the id that a token begins with, false if it has not the form
// of a token.
func keyID(token string) (string, bool) {
	if len(token) > maxToken {
		return "", false
	}
	id, secret, ok := strings.Cut(token, ".")
	if !ok || secret == "" || schemas.CheckID(schemas.PrefixKey, id) != nil {
		return "", false
	}
	return id, true
}
