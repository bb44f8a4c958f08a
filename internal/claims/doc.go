// Package claims decides which of several requests with the same idempotency
// key is the one that is queued, at whatever gateways they arrive.
//
// A gateway that gets such a request writes a claim to the claims topic, reads
// its partition up to that claim, and finds out who was first. The log is the
// only judge: all gateways read the same claims in the same order, and so come
// to the same verdict, after a restart too. The winner queues its request and
// then notes where it lies; whoever comes later gets the winner's stream.
// DESIGN.md beside this file has the rules and what they cost.
//
// # Concurrency
//
// A [Book] is safe for use by many goroutines. Its one mutex guards the table
// and how far each partition has been read; nothing is asked of a broker under
// it. Start begins one goroutine that looks at the topic and one for each broker
// that leads partitions of it; Close ends them.
//
// # What it does not do
//
// It knows neither HTTP nor Caddy, hashes nothing and queues no request: it
// is given hashes, and a function that produces its own records.
package claims
