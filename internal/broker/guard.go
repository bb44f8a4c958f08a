package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// ErrNotKafka says that what listens at an address is no Kafka broker: an HTTP
// server, for example, or a TLS listener that was dialed without TLS.
var ErrNotKafka = errors.New("the other side does not speak Kafka's protocol; check address and tls")

// maxGreeting bounds a broker's first answer on a connection, which lists the
// API versions that it takes: a few hundred bytes.
const maxGreeting = 1 << 20

// errHungUp stands for io.EOF, which kafka-go would put in the place of all that
// is said with it.
var errHungUp = errors.New("connection closed")

// guard is a connection whose first answer is looked at before kafka-go does,
// which believes any length it reads: an HTTP server's "HTTP" is an answer of
// 1.2 GB to it, and it decodes that for minutes.
type guard struct {
	net.Conn
	address string
	reach   *reach // is told how it went
	login   bool   // SASL follows the first answer
	seen    int    // of size
	size    [4]byte
	read    int64 // bytes in all
}

// Read reads, and refuses a first answer that cannot be a broker's.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	g.read += int64(n)
	if g.seen == len(g.size) {
		if errors.Is(err, io.EOF) && !g.login && g.read == int64(len(g.size))+int64(binary.BigEndian.Uint32(g.size[:])) {
			// So does Kafka with whoever has to log in and begins with something else.
			err = fmt.Errorf("%s ended the connection at the first request; if this listener wants a login, configure sasl: %w", g.address, err)
		}
		return n, err
	}
	g.seen += copy(g.size[g.seen:], p[:n])
	switch {
	case g.seen < len(g.size):
		if err != nil {
			err = g.unanswered(err)
			g.reach.set(err)
		}
	case binary.BigEndian.Uint32(g.size[:]) > maxGreeting:
		_ = g.Close() // kafka-go would go on reading, to get past what it does not understand
		err = fmt.Errorf("%s answered with %q: %w", g.address, g.size, ErrNotKafka)
		g.reach.set(err)
		return 0, err
	default:
		g.reach.set(nil)
	}
	return n, err
}

// unanswered says what a connection that failed before its first answer means.
func (g *guard) unanswered(err error) error {
	var remote *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s: %w: %w", g.address, ErrNoHandshake, err)
	case errors.As(err, &remote) && remote.Op == "remote error": // an alert of TLS, which may come that late
		return fmt.Errorf("%s: %s: %w", g.address, tlsAdvice(err), err)
	case errors.Is(err, io.EOF):
		err = errHungUp
	}
	return fmt.Errorf("%s ended the connection instead of answering Kafka's handshake; check address and tls, and whether it wants a client certificate: %w", g.address, err)
}
