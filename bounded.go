package osmosis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// bounded is a context with a deadline whose timer is made when somebody waits
// for it. A request that finds all it needs at once makes none.
type bounded struct {
	context.Context
	at time.Time

	once  sync.Once
	timed context.Context
	stop  context.CancelFunc
	over  atomic.Bool
}

// Deadline gives the earlier of its own and the parent's.
func (b *bounded) Deadline() (time.Time, bool) {
	if at, ok := b.Context.Deadline(); ok && at.Before(b.at) {
		return at, true
	}
	return b.at, true
}

// Done makes the timer.
func (b *bounded) Done() <-chan struct{} { return b.start().Done() }

// Err says that the time is over even where nobody has waited for it. It is
// never nil once Done is closed: a context made of this one may look as late as
// after cancel, in a goroutine of package context, which panics on nil.
func (b *bounded) Err() error {
	if err := b.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.at) {
		return context.DeadlineExceeded
	}
	if b.over.Load() {
		return context.Canceled
	}
	return nil
}

func (b *bounded) start() context.Context {
	b.once.Do(func() { b.timed, b.stop = context.WithDeadline(b.Context, b.at) })
	return b.timed
}

// cancel ends the context and lets go of the timer, where there is one.
func (b *bounded) cancel() {
	b.over.Store(true)
	b.once.Do(func() { b.timed, b.stop = b.Context, func() {} })
	b.stop()
}
