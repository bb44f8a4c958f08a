//go:build !linux

package load

import (
	"context"
	"errors"
	"net/netip"
)

// errOS is what there is instead of a loop.
var errOS = errors.New("the load generator waits with epoll: run it on Linux")

// Loop waits for connections and calls their handlers.
type Loop struct{}

// NewLoop gives an error: there is no epoll here.
func NewLoop() (*Loop, error) { return nil, errOS }

// Close does nothing.
func (*Loop) Close() {}

// Conn is one connection of a loop.
type Conn struct{}

// Dial gives an error.
func (*Loop) Dial(netip.AddrPort, netip.Addr, Handler) (*Conn, error) { return nil, errOS }

// Send gives an error.
func (*Conn) Send([]byte) error { return errOS }

// Close does nothing.
func (*Conn) Close() {}

// Run gives an error.
func (*Loop) Run(context.Context, func() bool) error { return errOS }
