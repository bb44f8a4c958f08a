package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
)

// ErrNotKafka says that what listens at an address is no Kafka broker: an HTTP
// server, for example, or a TLS listener that was dialed without TLS.
var ErrNotKafka = errors.New("the other side does not speak Kafka's protocol; check address and tls")

// maxGreeting bounds a broker's first answer on a connection, which lists the
// API versions that it takes: a few hundred bytes.
const maxGreeting = 1 << 20

// guarded gives a dial function whose connections look at the first answer
// before kafka-go does, which believes any length it reads: an HTTP server's
// "HTTP" is an answer of 1.2 GB to it, and it decodes that for minutes.
func guarded(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &guard{Conn: conn}, nil
	}
}

// guard is a connection whose first answer has not been looked at yet.
type guard struct {
	net.Conn
	seen int
	size [4]byte
}

// Read reads, and refuses a first answer that cannot be a broker's.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.seen < len(g.size) {
		g.seen += copy(g.size[g.seen:], p[:n])
		if size := binary.BigEndian.Uint32(g.size[:]); g.seen == len(g.size) && size > maxGreeting {
			_ = g.Close() // kafka-go would go on reading, to get past what it does not understand
			return 0, fmt.Errorf("%s answered with %q: %w", g.RemoteAddr(), g.size, ErrNotKafka)
		}
	}
	return n, err
}
