package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
)

const (
	// readSize is what one read takes at most, in bytes.
	readSize = 64 << 10
	// eventsAtOnce is how many connections one wait tells of at most.
	eventsAtOnce = 256
	// glance is how often a run that receives nothing looks whether it is over.
	glance = 20 * time.Millisecond
)

// Loop waits for connections and calls their handlers.
type Loop struct {
	epoll  int
	conns  map[int]*Conn
	events []syscall.EpollEvent
	buffer []byte
}

// NewLoop makes a loop without connections. Close it when done.
func NewLoop() (*Loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &Loop{epoll: fd, conns: make(map[int]*Conn), events: make([]syscall.EpollEvent, eventsAtOnce), buffer: make([]byte, readSize)}, nil
}

// Close closes all connections and the loop.
func (l *Loop) Close() {
	for _, c := range l.conns {
		c.Close()
	}
	syscall.Close(l.epoll)
}

// Conn is one connection of a loop.
type Conn struct {
	loop    *Loop
	handler Handler
	fd      int
	kept    []byte // received, not consumed
}

// Dial opens a connection to an address of this machine, from the given local
// address, or from any if that is the zero Addr.
func (l *Loop) Dial(to netip.AddrPort, from netip.Addr, h Handler) (*Conn, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	c := &Conn{loop: l, handler: h, fd: fd}
	if err := c.connect(to, from); err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	l.conns[fd] = c
	return c, nil
}

// connect makes the socket a connection that the loop waits for. It blocks
// until the other side's kernel has accepted, which on loopback is at once.
func (c *Conn) connect(to netip.AddrPort, from netip.Addr) error {
	if from.IsValid() {
		if err := syscall.Bind(c.fd, &syscall.SockaddrInet4{Addr: from.As4()}); err != nil {
			return os.NewSyscallError("bind", err)
		}
	}
	if err := syscall.Connect(c.fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if err := syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.SetNonblock(c.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(c.fd)} //nolint:gosec // descriptors are small
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(c.loop.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event))
}

// Send writes bytes at once. They have to fit into the send buffer, as a
// request does on a connection that carries one at a time.
func (c *Conn) Send(b []byte) error {
	n, err := syscall.Write(c.fd, b)
	if err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	if n < len(b) {
		return fmt.Errorf("send a request: the send buffer took %d bytes of %d", n, len(b))
	}
	return nil
}

// Close closes the connection; its handler hears nothing more.
func (c *Conn) Close() {
	delete(c.loop.conns, c.fd)
	syscall.Close(c.fd)
}

// Run serves the connections until done says so, the context ends, or a handler
// fails. The context's end is no error.
func (l *Loop) Run(ctx context.Context, done func() bool) error {
	for !done() && ctx.Err() == nil {
		n, err := syscall.EpollWait(l.epoll, l.events, int(glance.Milliseconds()))
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, event := range l.events[:n] {
			c := l.conns[int(event.Fd)]
			if c == nil {
				continue // closed by the handler of another
			}
			if err := c.receive(); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive reads once and calls the handler.
func (c *Conn) receive() error {
	n, err := syscall.Read(c.fd, c.loop.buffer)
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("read a response: %w", err)
	case n == 0:
		return ErrClosed
	}
	in := c.loop.buffer[:n]
	if len(c.kept) > 0 {
		c.kept = append(c.kept, in...)
		in = c.kept
	}
	consumed, err := c.handler.Receive(c, in)
	if err != nil {
		return err
	}
	c.kept = append(c.kept[:0], in[consumed:]...)
	return nil
}
