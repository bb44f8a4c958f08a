package world

import (
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	// drain is how long a gateway that stops lets its tries go on.
	drain = 25 * time.Second
	// unseen is how long a gateway may be out of everybody's sight and keep its tries.
	unseen = 6 * time.Second
	// takenUp is how long after a death the next try may take to begin, besides the
	// session in which the death is noticed.
	takenUp = 15 * time.Second
	// maxCuts is how often a record may be cut before it is given up.
	maxCuts = 3
)

// checkHandOver: a gateway that joins, leaves, is replaced or loses sight of the
// coordinator cuts no try and repeats none. Only what kills a process, freezes it or
// takes it out of the group for longer than its session does.
func (c *checker) checkHandOver() {
	for stream, tries := range c.tries {
		w := c.plan.works[tries[0].work]
		for i, t := range tries {
			if t.how == cut && !c.excused(t) {
				c.wrong("work %d: try %d at %s was cut at %v, and its gateway was neither killed nor frozen", w.n, t.attempt, t.gateway.name, t.ended)
			}
			var next *try
			if i+1 < len(tries) {
				next = tries[i+1]
				c.checkRepeat(w, t, next)
			}
			if t.how == killed {
				c.checkTakenUp(w, stream, t, next)
			}
		}
	}
}

// excused tells whether a try may have been cut, or have to be repeated.
func (c *checker) excused(t *try) bool {
	for _, h := range c.history.harms {
		if h.gateway != nil && h.gateway != t.gateway {
			continue
		}
		lasted := min(h.to, c.history.now()) - h.from
		// What it did within lag of its end may not have been committed, nor what it
		// could not commit meanwhile.
		near := h.from <= t.ended+lag+c.unseenBy(t.gateway, t.ended, h.from)
		switch h.kind {
		case kills:
			if near && h.to >= t.began {
				return true
			}
		case freezes, cutOffs, stalls, delays, brokerDowns, brokerStalls:
			// Several of them may follow each other.
			if lasted >= unseen && near && h.to+session >= t.began {
				return true
			}
		case stops, unroutes:
			if h.from+drain <= t.ended {
				return true
			}
		}
	}
	return false
}

// unseenBy is for how long brokers were out of a gateway's reach, or refused it, in
// some time.
func (c *checker) unseenBy(g *gateway, from, to time.Duration) (d time.Duration) {
	for _, h := range c.history.harms {
		if h.gateway != nil && h.gateway != g || h.from > to || h.to < from {
			continue
		}
		switch h.kind {
		case kills, joins, stops, unroutes, reloads:
		default:
			d += max(min(h.to, to)-max(h.from, from), 0) + lag
		}
	}
	return d
}

// checkRepeat: a try follows another only if that one failed at the site, or if
// nobody could know how it ended; and not before its time.
func (c *checker) checkRepeat(w work, t, next *try) {
	switch t.how {
	case failed, timedOut, brokeOff:
	default:
		if !c.excused(t) && !t.deafened && !c.belated(next) {
			c.wrong("work %d: try %d at %s %s, and try %d follows", w.n, t.attempt, t.gateway.name, t.how, next.attempt)
		}
	}
	if after := time.Duration(w.script.retryAfter) * time.Second; t.how == failed && next.began < t.ended+after && !c.excused(t) && !c.belated(next) {
		c.wrong("work %d: try %d follows after %v, and Retry-After says %v", w.n, next.attempt, next.began-t.ended, after)
	}
}

// checkTakenUp: what a dead gateway was at is tried again soon, if no part of its
// answer was out, and else ends failed and says why.
func (c *checker) checkTakenUp(w work, stream string, t, next *try) {
	if c.partOut(stream, t) {
		if next != nil && !t.sure && !c.belated(next) {
			c.wrong("work %d: try %d died in the middle of its answer, and try %d follows", w.n, t.attempt, next.attempt)
		}
		return
	}
	until := t.ended + session + takenUp
	quiet := c.plan.options.Concurrency >= 32 && w.ttl == longTTL && w.script.way != deaf && !c.isCancelled(stream)
	for _, h := range c.history.harms {
		if h.kind != kills && h.kind != joins && h.from <= until && h.to >= t.ended || h.kind == kills && h.from > t.ended && h.from <= until {
			quiet = false
		}
	}
	if !quiet || !c.anyAlive(t.ended, until) || c.ended(stream, until) {
		return
	}
	if next == nil || next.began > until {
		c.wrong("work %d: its gateway died at %v, and nobody has taken it up by %v", w.n, t.ended, until)
	}
}

// belated reports whether a try began late: its gateway was about to when it was
// stopped, and did not know by then that its time was over.
func (c *checker) belated(t *try) bool {
	return c.harmed(t.gateway, t.began-time.Second, t.began, overlapping...)
}

// partOut reports whether a part of a try's answer was on the reply topic when it
// ended.
func (c *checker) partOut(stream string, t *try) bool {
	for _, e := range c.replies[stream] {
		if r, err := record.ParseReply(e.Record); err == nil && r.More && r.Attempt == t.attempt && c.when(e) <= t.ended {
			return true
		}
	}
	return false
}

// anyAlive tells whether some gateway ran all the time.
func (c *checker) anyAlive(from, to time.Duration) bool {
	for _, g := range c.all {
		alive := g.began <= from
		for _, h := range c.history.harms {
			if h.gateway == g && (h.kind == kills || h.kind == stops) && h.from <= to {
				alive = false
			}
		}
		if alive {
			return true
		}
	}
	return false
}

// ended tells whether a stream had an end on the log by then.
func (c *checker) ended(stream string, by time.Duration) bool {
	for _, e := range c.replies[stream] {
		if r, err := record.ParseReply(e.Record); err == nil && r.Terminal() && c.when(e) <= by {
			return true
		}
	}
	return false
}

// used counts the tries that count against the attempts, and those that were cut.
func (c *checker) used(tries []*try) (used, cuts int) {
	for _, t := range tries {
		switch t.how {
		case failed, timedOut, brokeOff:
			used++
		case killed, cut:
			cuts++
		case answered:
			if c.excused(t) || t.deafened {
				cuts++
			}
		}
	}
	return used, cuts
}
