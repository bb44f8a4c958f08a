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
	login   int    // requests until SASL is done; 0 without
	asked   int    // requests written
	seen    int    // of size
	size    [4]byte
}

// early is how many requests a connection has carried at most when its end may
// mean that the broker wants a login: it ends it at the first that it may not answer.
const early = 3

// Write counts the requests, each of which is one write as long as it is short.
func (g *guard) Write(p []byte) (int, error) {
	g.asked++
	return g.Conn.Write(p)
}

// Read reads, and refuses a first answer that cannot be a broker's.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.seen == len(g.size) {
		if errors.Is(err, io.EOF) {
			err = g.ended(err)
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

// ended says what the end of a connection after its first answer may mean.
func (g *guard) ended(err error) error {
	switch {
	case g.asked <= g.login:
		return fmt.Errorf("%s ended the connection during the login; check sasl's user and password: %w", g.address, errHungUp)
	case g.login == 0 && g.asked <= early:
		return fmt.Errorf("%s ended the connection at the first request; if this listener wants a login, configure sasl: %w", g.address, err)
	}
	return err
}
