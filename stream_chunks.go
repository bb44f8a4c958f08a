package osmosis

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// chunks writes a body to a connection in chunks (RFC 9112, section 7.1).
type chunks struct {
	conn    net.Conn
	timeout time.Duration
	held    []byte // put, and not sent yet
}

// put keeps a piece for the next write.
func (c *chunks) put(piece []byte) error {
	c.held = append(c.held, piece...)
	return nil
}

// write sends what was put and the pieces as one chunk.
func (c *chunks) write(pieces ...[]byte) error { return c.send("\r\n", pieces...) }

// end sends what was put and the chunk that ends the body.
func (c *chunks) end() error {
	if len(c.held) == 0 {
		return c.send("\r\n") // an empty chunk is the last
	}
	return c.send("\r\n0\r\n\r\n")
}

// send sends a chunk and what is to follow it.
func (c *chunks) send(behind string, pieces ...[]byte) error {
	size := len(c.held)
	for _, piece := range pieces {
		size += len(piece)
	}
	buffer := chunkBuffers.Get().(*[]byte)
	b := append(strconv.AppendInt((*buffer)[:0], int64(size), 16), "\r\n"...)
	b = append(b, c.held...)
	for _, piece := range pieces {
		b = append(b, piece...)
	}
	b = append(b, behind...)
	c.held = nil
	err := c.transmit(b)
	if cap(b) <= maxPooledBody {
		*buffer = b
		chunkBuffers.Put(buffer)
	}
	return err
}

func (c *chunks) transmit(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return errors.Join(errGone, err)
	}
	if _, err := c.conn.Write(b); err != nil {
		return errors.Join(errGone, err)
	}
	return nil
}

var chunkBuffers = sync.Pool{New: func() any { return new([]byte) }}
