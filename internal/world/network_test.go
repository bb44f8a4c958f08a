package world

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// valve stops whoever comes to it while it is shut.
type valve struct {
	mu   sync.Mutex
	open chan struct{} // closed when it opens; nil while it is open
	shut int           // by how many
}

// close shuts it until the function that it gives is called. It may be shut by
// several at a time.
func (v *valve) close() (open func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut++; v.open == nil {
		v.open = make(chan struct{})
	}
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.shut--; v.shut == 0 {
			close(v.open)
			v.open = nil
		}
	})
}

// opens gives a channel that is closed when the valve opens, nil while it is.
func (v *valve) opens() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.open
}

// Why nothing passes.
var (
	errKilled  = errors.New("the process is dead")
	errRefused = errors.New("connection refused")
	errReset   = errors.New("connection reset by peer")
)

// wires are what lies between processes and brokers.
type wires struct {
	open  func(ctx context.Context, network, address string) (net.Conn, error)
	ports map[string]int // address → broker
	// stalled stop the way to a broker for all.
	stalled []valve

	mu   sync.Mutex
	down []int // how many want a broker to be out of reach
}

func (w *wires) isDown(node int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down[node] > 0
}

func (w *wires) setDown(node, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[node] += by
}

// network is a process' way out.
type network struct {
	wires   *wires
	dead    chan struct{} // closed when the process is killed
	killing sync.Once
	frozen  valve
	stall   valve // of the connections alone

	mu     sync.Mutex
	random *rand.Rand
	conns  map[*conn]struct{}
	off    int           // how many want it to be cut off
	slow   time.Duration // a delay on top of the usual one
	losing int           // answers that are to be lost
}

func newNetwork(w *wires, seed uint64) *network {
	return &network{
		wires: w, dead: make(chan struct{}), conns: make(map[*conn]struct{}),
		random: rand.New(rand.NewPCG(seed, 1)),
	}
}

// pass waits while the process is frozen, and fails once it is dead.
func (n *network) pass() error {
	for {
		open := n.frozen.opens()
		if open == nil {
			break
		}
		select {
		case <-open:
		case <-n.dead:
			return errKilled
		}
	}
	select {
	case <-n.dead:
		return errKilled
	default:
		return nil
	}
}

func (n *network) isDead() bool {
	select {
	case <-n.dead:
		return true
	default:
		return false
	}
}

// kill ends the process' part in the world.
func (n *network) kill() {
	n.killing.Do(func() { close(n.dead) })
	n.reset(-1)
}

// reset ends all connections, or those to one broker.
func (n *network) reset(node int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if node < 0 || c.node == node {
			delete(n.conns, c)
			c.end()
		}
	}
}

// cutOff has the network refuse connections until the function is called.
func (n *network) cutOff() (mend func()) {
	n.mu.Lock()
	n.off++
	n.mu.Unlock()
	n.reset(-1)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.off--
	}
}

// delay adds to the time that everything takes.
func (n *network) delay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.slow += d
}

// lose has the answers of the next requests be lost.
func (n *network) lose(answers int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.losing += answers
}

// lag draws how long a packet takes.
func (n *network) lag() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := time.Duration(100+n.random.IntN(900)) * time.Microsecond
	if n.random.IntN(50) == 0 {
		d += time.Duration(n.random.IntN(40)) * time.Millisecond
	}
	if n.slow > 0 {
		d += n.slow/2 + time.Duration(n.random.Int64N(int64(n.slow)))
	}
	return d
}

func (n *network) loses() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.losing == 0 {
		return false
	}
	n.losing--
	return true
}

// dial is the Dial of the process' broker client.
func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	if err := n.pass(); err != nil {
		return nil, err
	}
	node := n.wires.ports[address]
	for _, v := range []*valve{&n.stall, &n.wires.stalled[node]} {
		for open := v.opens(); open != nil; open = v.opens() {
			select {
			case <-open:
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-n.dead:
				return nil, errKilled
			}
		}
	}
	n.mu.Lock()
	off := n.off > 0
	n.mu.Unlock()
	if off || n.wires.isDown(node) {
		return nil, errRefused
	}
	inner, err := n.wires.open(ctx, kind, address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, of: n, node: node, ended: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.isDead() || n.off > 0 {
		inner.Close()
		return nil, errRefused
	}
	n.conns[c] = struct{}{}
	return c, nil
}

// conn is a connection to a broker.
type conn struct {
	net.Conn
	of   *network
	node int

	once    sync.Once
	ended   chan struct{} // closed when either side has ended it
	reading deadline
	writing deadline
	// lost says that the answer to what was written last is to be lost.
	lost atomic.Bool
}

func (c *conn) end() {
	c.once.Do(func() {
		close(c.ended)
		c.Conn.Close()
	})
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if err := c.of.pass(); err == nil {
		c.of.mu.Lock()
		delete(c.of.conns, c)
		c.of.mu.Unlock()
	}
	c.end()
	return nil
}

// look is how often a connection that stands looks whether its deadline was changed.
const look = 100 * time.Millisecond

// hold waits while the process is frozen or the way to the broker stands. A
// deadline ends the latter only: a process that does not run notices nothing.
func (c *conn) hold(d *deadline) error {
	for {
		if err := c.of.pass(); err != nil {
			return err
		}
		open := c.of.stall.opens()
		if open == nil {
			open = c.of.wires.stalled[c.node].opens()
		}
		if open == nil {
			return nil
		}
		left := d.left(look)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		select {
		case <-open:
		case <-timer.C:
		case <-c.ended:
			return errReset
		case <-c.of.dead:
			return errKilled
		}
		timer.Stop()
	}
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.hold(&c.reading); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.lost.Load() {
		c.end()
		return 0, io.EOF
	}
	if held := c.hold(&c.reading); held != nil {
		return 0, held
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.hold(&c.writing); err != nil {
		return 0, err
	}
	timer := time.NewTimer(c.of.lag())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ended:
		return 0, errReset
	}
	if err := c.hold(&c.writing); err != nil {
		return 0, err
	}
	if c.of.loses() {
		c.lost.Store(true)
	}
	return c.Conn.Write(p)
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.reading.set(t)
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writing.set(t)
	return c.Conn.SetWriteDeadline(t)
}

// deadline is when a call that waits before the pipe is asked has to give up.
type deadline struct {
	mu sync.Mutex
	at time.Time
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
}

// left gives how long there is until then, at most the time that it is given.
func (d *deadline) left(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return most
	}
	return min(most, time.Until(d.at))
}
