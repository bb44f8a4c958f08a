package ingress

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// maxDelay is the longest that the link holds a request back.
const maxDelay = 4 * time.Second

// fate is what the link does with one produce request.
type fate int

const (
	pass       fate = iota
	loseAnswer      // the broker acts on it, then the connection breaks
	loseAll         // the connection breaks before the broker sees it
	silence         // the broker never sees it, and nobody says so
	overtaken       // as silence, but the link keeps the request, for deliver
)

// link is the network between the producer and the broker.
type link struct {
	network kfake.VirtualNetwork
	real    bool         // dial the real network instead
	down    atomic.Bool  // dialing fails, and nothing gets through
	mute    atomic.Value // the end of the address of a broker that takes produce requests and does not answer

	mu      sync.Mutex
	produce func() (fate, time.Duration) // decides on produce requests; nil: pass
	kept    [][]byte
	open    map[*wire]bool
}

// onRequest sets who decides on produce requests, and on how long each is delayed.
func (l *link) onRequest(decide func() (fate, time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.produce = decide
}

// once gives the next produce request a fate; the others pass.
func (l *link) once(f fate) {
	var done atomic.Bool
	l.onRequest(func() (fate, time.Duration) {
		if done.Swap(true) {
			return pass, 0
		}
		return f, 0
	})
}

func (l *link) connect(ctx context.Context, kind, address string) (net.Conn, error) {
	if l.real {
		return new(net.Dialer).DialContext(ctx, kind, address)
	}
	return l.network.DialContext(ctx, kind, address)
}

func (l *link) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	err := errors.New("connection refused")
	if !l.down.Load() {
		var conn net.Conn
		if conn, err = l.connect(ctx, kind, address); err == nil {
			w := &wire{Conn: conn, link: l, address: address}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.open == nil {
				l.open = make(map[*wire]bool)
			}
			l.open[w] = true
			return w, nil
		}
	}
	return nil, &net.OpError{Op: "dial", Net: kind, Err: err}
}

// cut breaks all connections and refuses new ones.
func (l *link) cut() {
	l.down.Store(true)
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.open {
		w.Conn.Close()
	}
}

func (l *link) heal() { l.down.Store(false) }

// take gives the requests that were kept, and forgets them.
func (l *link) take() [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.kept
	l.kept = nil
	return kept
}

// deliver sends a request that was kept, and gives the broker's answer without
// its length.
func (l *link) deliver(address string, request []byte) ([]byte, error) {
	conn, err := l.connect(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err = io.ReadFull(conn, body)
	return body, err
}

// wire is one connection.
type wire struct {
	net.Conn
	link    *link
	address string
	fate    fate // of the request that was written last
}

func (w *wire) Write(b []byte) (int, error) {
	const produceKey = 0
	w.fate = pass
	if len(b) >= 6 && binary.BigEndian.Uint16(b[4:]) == produceKey {
		w.link.mu.Lock()
		decide := w.link.produce
		w.link.mu.Unlock()
		if mute, ok := w.link.mute.Load().(string); ok && strings.HasSuffix(w.address, mute) {
			w.fate = silence
		} else if decide != nil {
			var delay time.Duration
			if w.fate, delay = decide(); delay > 0 {
				<-time.After(delay)
			}
		}
	}
	switch w.fate {
	case loseAll:
		w.Conn.Close()
		return len(b), nil // as with a kernel that has it in its buffer
	case overtaken:
		w.link.mu.Lock()
		w.link.kept = append(w.link.kept, append([]byte(nil), b...))
		w.link.mu.Unlock()
		return len(b), nil
	case silence:
		return len(b), nil
	}
	return w.Conn.Write(b)
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.fate == loseAnswer {
		w.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func (w *wire) Close() error {
	w.link.mu.Lock()
	delete(w.link.open, w)
	w.link.mu.Unlock()
	return w.Conn.Close()
}
