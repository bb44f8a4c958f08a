// Package load drives HTTP/1.1 connections at so little cost that what serves
// them is what a benchmark measures.
//
// One goroutine serves any number of connections: it waits for all of them with
// epoll, reads into one buffer, and hands what came to the connection's
// [Handler], which sends bytes that were prepared beforehand. A request costs
// two system calls and no allocation. Of a response it looks at the status, the
// length and a Location; of an event stream at where events begin and end.
//
//	result, err := load.Exchange{Address: address, Connections: 64, Requests: requests, Status: 202}.Run(ctx, 3*time.Second)
//
// It runs on Linux. Elsewhere NewLoop gives an error.
//
// # Concurrency
//
// A Loop and its connections belong to the goroutine that calls Run; handlers
// run in it.
//
// # What it does not do
//
// It is no client for the world: it speaks to servers on the same machine that
// are under test, and whatever is unusual (a connection that the server closes,
// a full send buffer, a trailer) ends the run with an error instead of being
// worked around. It knows no TLS and no HTTP/2.
package load

import "errors"

// Handler is what a connection does with what it receives.
type Handler interface {
	// Receive gets the bytes that have come and were not consumed yet, and
	// tells how many of them it is done with. The bytes are valid during the
	// call only. An error ends the loop's run.
	Receive(c *Conn, in []byte) (consumed int, err error)
}

// ErrClosed says that a server closed a connection, which those under test have
// no reason to.
var ErrClosed = errors.New("the server closed a connection")
