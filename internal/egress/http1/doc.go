// Package http1 reads HTTP/1.1 responses (RFC 9112) from a connection.
//
// In: a connection that a request was written to. Out: the head of the response,
// of which only what the caller needs is kept, and the decoded body. What a
// server sends is bounded in every part, and an error never quotes it.
//
// A Reader holds its buffer only from New to Release, so that an idle connection
// costs none. It blocks as long as its connection does: deadlines are set there.
package http1
