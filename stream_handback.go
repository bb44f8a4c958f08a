package osmosis

import (
	"net"
	"net/http"
	"time"
)

// handBack gives a connection back to the server that it was taken from, and
// tells whether that has it now. A client that has read the end of an answer
// sends its next request at once, on the same connection: were that closed, the
// request would be lost, and one that is not idempotent not be sent again.
func handBack(server *http.Server, conn net.Conn) bool {
	if server == nil || conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	l := &single{conn: conn}
	_ = server.Serve(l) // which returns at once: there is no other, or the server is being shut down
	return l.given
}

// single is a listener with one connection.
type single struct {
	conn  net.Conn
	given bool
}

// Accept implements net.Listener.
func (l *single) Accept() (net.Conn, error) {
	if l.given {
		return nil, net.ErrClosed
	}
	l.given = true
	return l.conn, nil
}

// Close implements net.Listener.
func (l *single) Close() error { return nil }

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return l.conn.LocalAddr() }

// begun is a connection of which the beginning was read already.
type begun struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}
