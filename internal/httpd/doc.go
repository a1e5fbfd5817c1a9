// Package httpd makes the HTTP server that ingest and control share.
//
// In: connections of a listener. Out: requests to the routes that the roles
// register, and RFC 9457 problems for whatever goes wrong on the way, also for
// what never reaches a route (headers too large, no valid HTTP).
//
// It promises that a body is read when a handler asks for it by Body and never
// before, up to the handler's limit, chunked or not, and is not decompressed;
// that all bodies together keep to one budget of memory, and each takes no more
// than what has arrived of it calls for; that a body that was refused, or that
// nobody asked for, is not taken for the next request; that every answer carries
// a request id; that a request framed in two ways (Transfer-Encoding with
// Content-Length) reaches no handler; and that nothing a client does, or leaves
// undone, holds a connection for ever.
//
// Handlers may block; each has its connection's goroutine. The strings and
// bytes that a fiber.Ctx gives out change after the handler returned: what
// outlives it must be copied.
package httpd
