// Package hub brings replies from Kafka to the clients that wait for them.
//
// A request that a gateway accepted has a stream: the replies that workers
// produce for it, and one end. The log of the reply topic is the only place
// where a stream is kept, so any gateway serves any stream, also after a
// restart. What a gateway must know to do so travels in the stream's URL, as a
// sealed token (Claims, Keyring); where a client stands in its stream travels
// in the ids of the events that it got (Cursor). The hub itself holds what is
// shared and can be had again: windows of recent records in memory, the tails
// that fill them, and the floors that new tokens start from.
//
// # Concurrency
//
// Cursor and Claims are values. A Keyring does not change once it is made, and
// any number of goroutines may use it, as they may a Hub. A Subscription is for
// one goroutine, and another may close it. An Entry is shared by all who read
// it and does not change. DESIGN.md tells how the parts of a Hub work together,
// and the comment of Hub in which order its locks are taken.
//
// # What it does not do
//
// The package knows neither HTTP nor Caddy: it does not write events to a
// connection, choose status codes, read configuration or decide who may ask.
// It neither produces requests nor writes the end of a stream.
package hub
