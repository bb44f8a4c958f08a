package broker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// errIdleDead says that the other side ended the connection while it was idle.
var errIdleDead = errors.New("the idle connection had ended")

// How a connection is looked at before a request is written to it.
const (
	// idleAfter is how long a connection may rest before it is suspect. Busy
	// ones are not looked at: it would cost each request a look.
	idleAfter = 100 * time.Millisecond

	// glance is how long the look takes when the connection lives. An end that
	// has arrived is seen at once.
	glance = 500 * time.Microsecond
)

// idler is a connection that notices before a request is written that the other
// side has gone. Without it the write would succeed, into a buffer of the
// system's, and the request would count as sent to a broker that never saw it.
//
// It lies above TLS, whose own end it sees, and has one user at a time: the
// Transport's goroutine for the connection, which writes and then reads.
type idler struct {
	net.Conn
	used     time.Time // when it last carried something
	deadline time.Time // for reading, as the Transport set it
	early    []byte    // read by a look, for the next Read
}

// maxEarly bounds what is kept of an answer that nobody asked for.
const maxEarly = 4096

func (c *idler) Write(p []byte) (int, error) {
	if !c.used.IsZero() && time.Since(c.used) > idleAfter && c.dead() {
		return 0, fmt.Errorf("%s: %w", c.RemoteAddr(), errIdleDead)
	}
	n, err := c.Conn.Write(p)
	c.used = time.Now()
	return n, err
}

func (c *idler) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.Conn.Read(p)
	c.used = time.Now()
	return n, err
}

func (c *idler) SetDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetDeadline(t)
}

func (c *idler) SetReadDeadline(t time.Time) error {
	c.deadline = t
	return c.Conn.SetReadDeadline(t)
}

// dead looks whether the connection has ended. It reads for a moment, since no
// portable way asks without reading; what comes is kept.
func (c *idler) dead() bool {
	if c.Conn.SetReadDeadline(time.Now().Add(glance)) != nil {
		return true
	}
	buffer := make([]byte, 512)
	for len(c.early) < maxEarly {
		n, err := c.Conn.Read(buffer)
		c.early = append(c.early, buffer[:n]...)
		if err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded) || c.Conn.SetReadDeadline(c.deadline) != nil
		}
	}
	return true // it is talking to itself
}
