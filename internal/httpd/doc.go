// Package httpd makes the HTTP server that ingest and control share.
//
// In: connections of a listener. Out: requests to the routes that the roles
// register, and RFC 9457 problems for whatever goes wrong on the way, also for
// what never reaches a route (headers too large, body too large, no valid HTTP).
//
// It promises that a body is never larger than the limit, chunked or not, that
// it is in memory whole before a handler runs and is not decompressed; that
// every answer carries a request id; that a request framed in two ways
// (Transfer-Encoding with Content-Length) reaches no handler; and that nothing
// a client does, or leaves undone, holds a connection for ever.
//
// Handlers may block; each has its connection's goroutine. The strings and
// bytes that a fiber.Ctx gives out change after the handler returned: what
// outlives it must be copied.
package httpd
