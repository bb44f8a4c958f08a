package osmosis

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// Why a stream is not opened. Both pass with time.
var (
	// errTooMany says that the process has as many open streams as it may have.
	errTooMany = errors.New("too many open streams")
	// errTooManyOfClient says that this client has.
	errTooManyOfClient = errors.New("too many open streams of one client")
)

// streams are the streams open in this process. They outlive configurations,
// so their count does too: counted by configuration, a reload would start again
// from nothing while the streams of the one before are still there.
var streams openStreams

// openStreams counts open streams, in all and by client.
type openStreams struct {
	mu      sync.Mutex
	total   int
	clients map[string]int
	gone    chan struct{} // closed when the last stream closes; nil while nobody waits
}

// enter counts a stream in, unless there are too many; the limits are those of
// the configuration that it came through. The caller calls leave when it has
// closed; calling it again does nothing.
func (o *openStreams) enter(client string, most, mostOfClient int) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.total >= most:
		return nil, errTooMany
	case o.clients[client] >= mostOfClient:
		return nil, errTooManyOfClient
	}
	if o.clients == nil {
		o.clients = make(map[string]int)
	}
	o.total++
	o.clients[client]++
	return sync.OnceFunc(func() { o.leave(client) }), nil
}

func (o *openStreams) leave(client string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total--
	// A client that left takes its entry with it: the map is as large as the
	// clients that are there, not as those that ever were.
	if o.clients[client]--; o.clients[client] == 0 {
		delete(o.clients, client)
	}
	if o.total == 0 && o.gone != nil {
		close(o.gone)
		o.gone = nil
	}
}

// count gives how many streams are open.
func (o *openStreams) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// await waits until no stream is open, or until the time is over.
func (o *openStreams) await(most time.Duration) {
	o.mu.Lock()
	if o.total == 0 {
		o.mu.Unlock()
		return
	}
	if o.gone == nil {
		o.gone = make(chan struct{})
	}
	gone := o.gone
	o.mu.Unlock()

	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-gone:
	case <-timer.C:
	}
}

// awaitStreams waits until the open streams have said goodbye, or until the
// time is over.
func awaitStreams(most time.Duration) { streams.await(most) }

// spread gives a duration between least and most at random, so that what
// happened to many clients at once does not bring them back at once.
func spread(least, most time.Duration) time.Duration {
	return least + rand.N(most-least+1)
}
