package osmosis

import (
	"context"
	"sync"
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

// Err says that the time is over even where nobody has waited for it.
func (b *bounded) Err() error {
	if err := b.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(b.at) {
		return context.DeadlineExceeded
	}
	return nil
}

func (b *bounded) start() context.Context {
	b.once.Do(func() { b.timed, b.stop = context.WithDeadline(b.Context, b.at) })
	return b.timed
}

// cancel lets go of the timer, where there is one.
func (b *bounded) cancel() {
	b.once.Do(func() { b.timed, b.stop = b.Context, func() {} })
	b.stop()
}
