package autoscale

import (
	"math"
	"slices"
	"time"
)

// keep names what kept the number from following the load at once.
type keep int

const (
	follows      keep = iota // nothing
	heldUnknown              // the broker does not tell
	heldFloor                // it has not for too long
	heldWorkTime             // nobody knows how long a record takes
	heldStuck                // nothing of what waits moves
	heldUp                   // the last raise is too fresh
	heldDown                 // more were needed a moment ago
	heldBudget               // the hour's rebalances are spent
	heldIdle                 // the last worker stays for a while
)

// pace says which number to have when at least missing are needed now.
func (c Config) pace(h History, d Decision, l load, missing int) (int, keep) {
	n := min(max(d.From, c.Min), c.Max)
	switch {
	case !l.known && d.At.Sub(d.KnownAt) >= c.Hold:
		if l.blind || n == 0 && missing <= c.floor() {
			return min(c.floor(), c.Max), heldFloor
		}
		d.enough = max(d.enough, c.floor())
	case !l.known:
		// What is known may ask for more, but nothing may be taken away.
		if l.blind || missing <= n {
			if len(h.Decisions) == 0 {
				n = max(n, c.floor())
			}
			return min(n, c.Max), heldUnknown
		}
	case l.stuck:
		return min(max(n, 1), c.Max), heldStuck
	case l.busy && l.guessed && missing <= n && d.enough >= n:
		return min(max(n, c.floor()), c.Max), heldWorkTime
	}
	if missing > n {
		return c.raise(h, d, n, missing)
	}
	if d.enough < n {
		return c.lower(h, d, l, n)
	}
	return n, follows
}

// raise goes up to a number, if it is time.
func (c Config) raise(h History, d Decision, n, to int) (int, keep) {
	if n == 0 {
		return to, follows // nobody is stopped by that
	}
	last := h.lastChange(func(d Decision) bool { return d.Workers > d.From && d.From > 0 })
	// What follows within a second has seen more of the same rise, and belongs to it.
	if last != nil && d.At.Sub(last.At) >= 2*quick && d.At.Sub(last.At) < c.UpEvery && 2*to < 3*n {
		return n, heldUp
	}
	if !c.affords(h, d.At, n, to) {
		return n, heldBudget
	}
	return to, follows
}

// mostPatient is by how much longer than usual the smallest step down waits.
const mostPatient = 4

// waits is how long fewer must have been enough. What a step down saves has to be
// worth its rebalance: one of a fifth waits for as long as is configured, a
// smaller one for longer, and a large one for half of that unless it is a try.
func (c Config) waits(from, to int, try bool) time.Duration {
	if try {
		return c.DownAfter
	}
	step := float64(from-to) / float64(from)
	return time.Duration(float64(c.DownAfter) * math.Min(mostPatient, math.Max(0.5, 0.2/step)))
}

// rest lets those go who have nothing to do: all at once when idle. Where that is
// long, all but one go before.
func (c Config) rest(h History, d Decision, n int) (int, keep) {
	idle, to := d.At.Sub(d.BusyAt), max(c.Min, 1)
	if c.Min == 0 {
		if idle >= c.Idle {
			return 0, follows
		}
		if n == 1 || c.Idle < 2*c.DownAfter || c.Idle-idle < c.DownAfter/2 {
			return n, heldIdle
		}
	}
	waits := c.waits(n, to, false)
	if h.neededFor(d.At, waits) > to {
		return n, heldDown
	}
	to, kept := c.step(h, d, n, to, waits)
	if kept == follows && c.Min == 0 {
		kept = heldIdle
	}
	return to, kept
}

// lower goes down by the largest step that has waited for long enough, if it is time.
func (c Config) lower(h History, d Decision, l load, n int) (int, keep) {
	if l.known && !l.busy && d.enough <= c.Min && d.ForInflow < 1e-9 {
		return c.rest(h, d, n)
	}
	to, waited := n, time.Duration(0)
	for fewer := d.enough; fewer < n && to == n; fewer++ {
		if waits := c.waits(n, fewer, l.guessed); h.neededFor(d.At, waits) <= fewer {
			to, waited = fewer, waits
		}
	}
	if to == n {
		return n, heldDown
	}
	return c.step(h, d, n, to, waited)
}

// step goes down to a number that was enough for a while, if that is to be now.
func (c Config) step(h History, d Decision, n, to int, waited time.Duration) (int, keep) {
	last := h.lastChange(func(Decision) bool { return true })
	// Who has just begun to look, and found workers, does not know yet what was
	// needed before.
	found := last == nil || last.From > 0
	if last != nil && d.At.Sub(last.At) < waited || to > 0 && found && d.At.Sub(d.Since) < c.DownAfter {
		return n, heldDown
	}
	if !c.affords(h, d.At, n, to) {
		return n, heldBudget
	}
	return to, follows
}

// neededFor is the largest number that was needed during a time until now.
func (h *History) neededFor(at time.Time, span time.Duration) int {
	most := 0
	for _, old := range slices.Backward(h.Decisions) {
		if at.Sub(old.At) > span {
			break
		}
		most = max(most, old.enough)
	}
	return most
}

// affords tells whether a change is worth one of the rebalances that are left.
func (c Config) affords(h History, at time.Time, from, to int) bool {
	if to == 0 {
		return true
	}
	left := c.Rebalances - spent(h, at)
	step := max(to-from, from-to)
	switch {
	case left <= 0:
		return false
	case 4*left <= c.Rebalances:
		return to > from && 2*step >= from
	case 2*left <= c.Rebalances:
		return 10*step >= from
	}
	return true
}

// spent counts the changes of the last hour that stopped somebody.
func spent(h History, at time.Time) int {
	n := 0
	for _, d := range h.Decisions {
		if d.Workers != d.From && d.Workers > 0 && d.From > 0 && at.Sub(d.At) < time.Hour {
			n++
		}
	}
	return n
}
