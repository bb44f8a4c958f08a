package hub

import (
	"context"
	"math/rand/v2"
	"time"
)

// The bounds of the pauses between tries of something that failed.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// backoff counts the failures in a row. The pause after each doubles up to
// maxBackoff and is cut by up to half at random, so that the gateways of a site
// do not come back to a broker in step. The zero value has seen no failure.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// next gives the pause after one more failure.
func (b *backoff) next() time.Duration {
	d := min(minBackoff<<min(b.failures, 10), maxBackoff)
	b.failures++
	return d/2 + rand.N(d/2+1)
}

// sleep pauses, and tells whether the context is still alive.
func (b *backoff) sleep(ctx context.Context) bool {
	timer := time.NewTimer(b.next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
