package embedded

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// listener is what the cluster listens with. It keeps clients out until all is
// in place, has nothing answered that a loss of power could undo, and lets
// nothing be answered once the broker stops.
//
// kfake syncs files, but not directories: the list of topics is renamed into
// place and then answered, and a loss of power could bring the old one back,
// with the records of the new topics acknowledged in between. So once a request
// came in that changes the list, answers wait until the directory is synced.
//
// When it stops, kfake goes on answering requests for a moment, without writing
// to the log of groups, which it writes anew a little later. So no client is
// there any more when that begins.
type listener struct {
	net.Listener
	ready chan struct{} // closed when clients may come in
	sync  func() error  // the directory with the list of topics
	fail  func(error)   // is told when it cannot be synced

	cluster  *kfake.Cluster
	changes  atomic.Int64 // how many requests came in that change the list
	synced   atomic.Int64 // how many of them were handled and then synced
	settling sync.Mutex

	mu       sync.Mutex
	closed   bool
	conns    map[net.Conn]struct{}
	stopping chan struct{} // closed when the broker stops
}

func newListener(inner net.Listener, sync func() error, fail func(error)) *listener {
	return &listener{
		Listener: inner, ready: make(chan struct{}), stopping: make(chan struct{}),
		sync: sync, fail: fail, conns: make(map[net.Conn]struct{}),
	}
}

// changesTopics are the requests after which the list of topics is written.
var changesTopics = []kmsg.Key{
	kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.CreatePartitions, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs,
}

// install watches such requests come in. It has to be done before clients are.
// (A function for all requests would do too, but kfake remembers the last request
// of every connection that one has seen, for ever.)
func (l *listener) install(cluster *kfake.Cluster) {
	l.cluster = cluster
	for _, key := range changesTopics {
		cluster.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			l.changes.Add(1)
			return nil, nil, false
		})
	}
}

// settle syncs the directory, if there is something to sync.
func (l *listener) settle() error {
	if l.synced.Load() == l.changes.Load() {
		return nil
	}
	l.settling.Lock()
	defer l.settling.Unlock()
	n := l.changes.Load()
	if l.synced.Load() == n {
		return nil
	}
	if l.isClosed() {
		return net.ErrClosed // and the cluster may not answer any more
	}
	_ = l.cluster.TopicInfo("") // answered after the requests that came before
	if err := l.sync(); err != nil {
		l.fail(err)
		return err
	}
	l.synced.Store(n)
	return nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.ready:
	case <-l.stopping:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	l.conns[c] = struct{}{}
	return &connection{c, l}, nil
}

// shut sends everybody away and lets nobody in any more. When it returns, nobody
// is being answered.
func (l *listener) shut() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	close(l.stopping)
	_ = l.Listener.Close()
	l.dropLocked()
	l.mu.Unlock()

	l.settling.Lock()
	defer l.settling.Unlock()
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// drop sends everybody away, to come back and find their requests unanswered.
func (l *listener) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked()
}

func (l *listener) dropLocked() {
	for c := range l.conns {
		_ = c.Close()
	}
}

// connection is a client's connection.
type connection struct {
	net.Conn
	listener *listener
}

// Write implements net.Conn: it answers a request.
func (c *connection) Write(answer []byte) (int, error) {
	if err := c.listener.settle(); err != nil {
		_ = c.Close() // unanswered: nobody may count on what was done
		return 0, err
	}
	return c.Conn.Write(answer)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.conns, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
