// Package auth tells who sends a request, and which tenant an event belongs to.
//
// In: bearer tokens and tenant ids, looked up in the registry's view in Redis.
// Out: identities and tenants, from a bounded cache of this process.
//
// It promises: what it answers is at most 5 s old, or at most 10 min while the
// view can't be asked (Redis away, or a view that is being rebuilt or older
// than what was read from it before). That something does not exist is believed
// only under a complete marker and is never cached. Tokens are compared in
// constant time and kept nowhere, in no error and no log line.
//
// A call blocks for at most one round trip to Redis, bounded by Config.Timeout;
// callers that ask for the same entity at the same time share it.
package auth
