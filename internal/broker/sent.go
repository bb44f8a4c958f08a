package broker

import (
	"errors"
	"sync/atomic"
)

// ErrNotSent says that no byte of the request has left for a broker, nor will:
// nobody could be dialed, the broker is not known, the connection was dead
// before anything was written, or the time was over first. Whatever the request
// was to do is surely not done by it.
var ErrNotSent = errors.New("the request was not sent")

// sending is how far a request has come. Its writer and the caller who no
// longer waits run in different goroutines, and whoever comes first decides:
// either the caller is told that the request may have been sent, or it never is.
type sending struct{ state atomic.Int32 }

const (
	unsent int32 = iota
	begun
	abandoned
)

// begin is the writer's: it may write only when this is true.
func (s *sending) begin() bool { return s.state.CompareAndSwap(unsent, begun) }

// abandon is the caller's: true means that nothing was written and nothing will be.
func (s *sending) abandon() bool { return s.state.CompareAndSwap(unsent, abandoned) }
