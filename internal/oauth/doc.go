// Package oauth fetches and keeps access tokens of the OAuth 2.0 client
// credentials grant (RFC 6749, section 4.4).
//
// In: a client's settings and a sender. Out: a token that is valid for a while
// yet, or an Error that may be shown.
//
// It promises:
//
//  1. For one client, one request to the token endpoint at a time. While the old
//     token is valid nobody waits for the new one but who fetches it, for half of
//     its time at most.
//  2. A token is refreshed before it ends. A failure counts for 5 s: until then
//     nobody asks again. One that tells of the caller, not of the token endpoint,
//     counts for the caller alone.
//  3. A token that a receiver refused is dropped once; the one that comes next
//     stays, until a receiver has taken it.
//  4. No error holds a secret or what the token endpoint wrote freely.
//
// Whoever asks first fetches, for as long as its context allows; others wait for
// that as long as theirs do. No lock is held meanwhile. Everything is safe for
// concurrent use.
package oauth
