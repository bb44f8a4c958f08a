// Package backoff has the pauses between tries of something that failed.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// The bounds of a Backoff's pauses.
const (
	Least = 100 * time.Millisecond
	Most  = 2 * time.Second
)

// Backoff counts the failures in a row. The pause after each doubles from Least
// up to Most and is cut by up to half at random, so that the processes of a site
// do not come back to a broker in step. The zero value has seen no failure. It
// is for one goroutine.
type Backoff struct{ failures int }

// Failures tells how many there were since the last Reset.
func (b *Backoff) Failures() int { return b.failures }

// Reset forgets the failures.
func (b *Backoff) Reset() { b.failures = 0 }

// Next counts a failure and gives the pause after it.
func (b *Backoff) Next() time.Duration {
	b.failures++
	return Pause(b.failures, Least, Most)
}

// Pause gives the pause after some failures in a row, at least one, with bounds
// of the caller's own. It is for those who keep the count where others see it.
func Pause(failures int, least, most time.Duration) time.Duration {
	const doublings = 10 // which is far beyond any most
	d := min(least<<min(failures-1, doublings), most)
	return d/2 + rand.N(d/2+1)
}

// Sleep counts a failure and pauses. It tells whether the context is still alive.
func (b *Backoff) Sleep(ctx context.Context) bool {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
