package embedded

import (
	"net"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// doors is the listener that the cluster gets. It keeps clients out until all is
// in place, has nothing answered that a loss of power could undo, and lets
// nothing be answered once the broker stops.
//
// kfake syncs files, but not directories: the list of topics is renamed into
// place and then answered, and a loss of power could bring the old one back,
// with the records of the new topics acknowledged in between. So while there is
// a request at hand that changes the list, or may have been, answers wait until
// the directory is synced.
//
// When it stops, kfake goes on answering requests for a moment, without writing
// to the log of groups, which it writes anew a little later. So no client is
// there any more when that begins.
type doors struct {
	net.Listener
	open  chan struct{} // closed when clients may come in
	sync  func() error  // the directory with the list of topics
	fail  func(error)   // is told when it cannot be synced
	fresh atomic.Bool   // whether that list may have changed since it was synced

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	leave  chan struct{} // closed when the broker stops
}

func newDoors(l net.Listener, sync func() error, fail func(error)) *doors {
	return &doors{
		Listener: l, open: make(chan struct{}), leave: make(chan struct{}),
		sync: sync, fail: fail, conns: make(map[net.Conn]struct{}),
	}
}

// changesTopics are the requests after which the list of topics is written.
var changesTopics = []kmsg.Key{
	kmsg.CreateTopics, kmsg.DeleteTopics, kmsg.CreatePartitions, kmsg.AlterConfigs, kmsg.IncrementalAlterConfigs,
}

// install watches requests come in. The cluster handles one after the other, so
// at the next one the list of topics is as the one before has left it.
func (d *doors) install(cluster *kfake.Cluster) {
	cluster.Control(func(q kmsg.Request) (kmsg.Response, error, bool) {
		if d.fresh.Load() && d.settle() == nil {
			d.fresh.Store(false)
		}
		for _, key := range changesTopics {
			if q.Key() == int16(key) {
				d.fresh.Store(true)
			}
		}
		return nil, nil, false
	})
}

func (d *doors) settle() error {
	err := d.sync()
	if err != nil {
		d.fail(err)
	}
	return err
}

// Accept implements net.Listener.
func (d *doors) Accept() (net.Conn, error) {
	select {
	case <-d.open:
	case <-d.leave:
		return nil, net.ErrClosed
	}
	c, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	d.conns[c] = struct{}{}
	return &visitor{c, d}, nil
}

// shut sends everybody away and lets nobody in any more.
func (d *doors) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	close(d.leave)
	_ = d.Listener.Close()
	d.dropLocked()
}

// drop sends everybody away, to come back and find their requests unanswered.
func (d *doors) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropLocked()
}

func (d *doors) dropLocked() {
	for c := range d.conns {
		_ = c.Close()
	}
}

// visitor is a client's connection.
type visitor struct {
	net.Conn
	doors *doors
}

// Write implements net.Conn: it answers a request.
func (v *visitor) Write(answer []byte) (int, error) {
	if v.doors.fresh.Load() {
		if err := v.doors.settle(); err != nil {
			_ = v.Close() // unanswered: nobody may count on what was done
			return 0, err
		}
	}
	return v.Conn.Write(answer)
}

// Close implements net.Conn.
func (v *visitor) Close() error {
	v.doors.mu.Lock()
	delete(v.doors.conns, v.Conn)
	v.doors.mu.Unlock()
	return v.Conn.Close()
}
