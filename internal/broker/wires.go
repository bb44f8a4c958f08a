package broker

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Wires remembers the connections that it dialed, so that they can be cut from
// outside. kafka-go's consumer group gives no other way to end a request that a
// broker does not answer.
type Wires struct {
	open func(ctx context.Context, network, address string) (net.Conn, error)
	ctx  context.Context // ends with Cut, and with it a dial under way
	stop context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewWires dials with open; nil means the net package's dialer.
func NewWires(open func(ctx context.Context, network, address string) (net.Conn, error)) *Wires {
	if open == nil {
		open = new(net.Dialer).DialContext
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Wires{open: open, ctx: ctx, stop: stop, conns: make(map[net.Conn]struct{})}
}

// errCut is what dialing gives after Cut.
var errCut = errors.New("dial: the group is being left")

// Dial opens a connection.
func (w *Wires) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	conn, err := w.open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		conn.Close()
		return nil, errCut
	}
	w.conns[conn] = struct{}{}
	return &wire{Conn: conn, of: w}, nil
}

// Cut closes all connections and refuses new ones.
func (w *Wires) Cut() {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn := range w.conns {
		conn.Close()
	}
	clear(w.conns)
}

type wire struct {
	net.Conn
	of *Wires
}

func (w *wire) Close() error {
	w.of.mu.Lock()
	delete(w.of.conns, w.Conn)
	w.of.mu.Unlock()
	return w.Conn.Close()
}
