package claims

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
// maxBackoff, less up to half of it at random, so that gateways do not come back
// to a broker in step.
type backoff struct{ failures int }

func (b *backoff) reset() { b.failures = 0 }

// sleep pauses after one more failure, or until the context ends.
func (b *backoff) sleep(ctx context.Context) {
	d := min(minBackoff<<min(b.failures, 10), maxBackoff)
	b.failures++
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
