package world

import (
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// lag is how long what a try has come to may take to be committed when nothing is wrong.
const lag = time.Second

// unsettling are the faults after which what a gateway has done may be done
// again, since it could not commit it.
var unsettling = []kind{
	kills, freezes, stops, unroutes, resets, cutOffs, stalls, delays, loses, brokerResets, brokerDowns, brokerStalls, lateProduces,
	coordinatorMoves, commitErrors, heartbeatErrors, produceErrors,
}

// disturbed tells whether a try may count for nothing, because its gateway died
// or could not commit its outcome.
func (c *checker) disturbed(t *try) bool {
	to := t.ended
	if to < 0 {
		to = 1 << 60
	}
	return c.harmed(t.gateway, t.began-10*time.Second, to+10*time.Second, unsettling...)
}

// checkTries: no record is tried more often than its attempts allow, but for the
// tries that nobody could count; each try has the number after the one before; none
// begins after the expiry or before the one before has ended.
func (c *checker) checkTries() {
	for stream, tries := range c.tries {
		w := c.plan.works[tries[0].work]
		if len(c.queued[stream]) == 0 {
			c.wrong("work %d was tried, and its request is not on the topic", w.n)
			continue
		}
		counted, most := 0, 0
		for i, t := range tries {
			if most = max(most, t.attempts); !c.disturbed(t) {
				counted++
			}
			if i > 0 {
				c.checkNext(w, tries[i-1], t)
			}
			if expires := c.expiryOf(stream); t.began > expires && !c.harmed(t.gateway, expires-time.Second, t.began, freezes) {
				c.wrong("work %d: try %d begins at %v, after its expiry at %v", w.n, t.attempt, t.began, expires)
			}
		}
		if counted > most {
			c.wrong("work %d was tried %d times undisturbed, of %d (%s)", w.n, counted, most, w.script)
		}
	}
}

// checkNext looks at two tries of a record that follow each other.
func (c *checker) checkNext(w work, before, t *try) {
	switch {
	case before.deafened, c.belated(t):
	case t.began < before.ended || before.ended < 0:
		if !c.harmed(before.gateway, before.began-10*time.Second, t.began, overlapping...) {
			c.wrong("work %d: try %d at %s begins at %v, while try %d at %s runs", w.n, t.attempt, t.gateway.name, t.began, before.attempt, before.gateway.name)
		}
	case c.disturbed(before):
	case t.attempt <= before.attempt:
		c.wrong("work %d: try %d follows try %d, which was not disturbed", w.n, t.attempt, before.attempt)
	case before.how == answered:
		c.wrong("work %d: try %d follows try %d, which was answered and not disturbed", w.n, t.attempt, before.attempt)
	}
	if t.attempt < before.attempt && !c.belated(t) && !c.harmed(before.gateway, before.began-10*time.Second, t.began, overlapping...) {
		c.wrong("work %d: try %d follows try %d", w.n, t.attempt, before.attempt)
	}
}

// overlapping are the faults through which a gateway may go on with a try after
// another has begun the next: it does not run, or hears nothing of the group.
var overlapping = []kind{freezes, cutOffs, stalls, delays, brokerDowns, brokerStalls}

// expiryOf gives the expiry that the request record says.
func (c *checker) expiryOf(stream string) time.Duration {
	r, err := record.ParseRequest(c.queued[stream][0].Record)
	if err != nil {
		return 1 << 62
	}
	return r.Expires.Sub(c.history.began)
}

// checkOrder: of the records of a key, each is tried after the end of the one before it
// is on the log, and two are never tried at the same time.
func (c *checker) checkOrder() {
	for _, list := range c.logs[orders] {
		keys := make(map[string][]entry)
		for _, e := range list {
			if e.Key != nil {
				keys[string(e.Key)] = append(keys[string(e.Key)], e)
			}
		}
		for key, entries := range keys {
			for i, e := range entries {
				tries := c.tries[e.id()]
				if i == 0 || len(tries) == 0 {
					continue
				}
				c.checkBehind(key, entries[i-1], e, tries)
			}
			c.checkAlone(key, entries)
		}
	}
}

// checkBehind looks at the record before another of its key.
func (c *checker) checkBehind(key string, before, e entry, tries []*try) {
	began := tries[0].began
	if began > c.expiryOf(before.id()) || c.isCancelled(before.id()) {
		return
	}
	if !c.ended(before.id(), began) {
		c.wrong("key %s: the request at %d was tried at %v, before the one at %d had ended", key, e.offset, began, before.offset)
	}
}

// checkAlone looks at all tries of a key.
func (c *checker) checkAlone(key string, entries []entry) {
	var all []*try
	for _, e := range entries {
		all = append(all, c.tries[e.id()]...)
	}
	slices.SortFunc(all, func(a, b *try) int { return int(a.began - b.began) })
	for i, t := range all {
		for _, before := range all[:i] {
			if before.work == t.work || before.deafened || c.belated(t) || before.ended >= 0 && before.ended <= t.began {
				continue
			}
			if !c.harmed(before.gateway, before.began-10*time.Second, t.began, overlapping...) {
				c.wrong("key %s: work %d begins at %s at %v, while work %d is tried at %s", key, t.work, t.gateway.name, t.began, before.work, before.gateway.name)
			}
		}
	}
}

// checkCommits: what is below a committed offset has ended by then.
func (c *checker) checkCommits() {
	for _, done := range c.history.commits {
		for _, e := range c.logs[orders][done.partition] {
			if e.offset >= done.offset {
				break
			}
			if c.isCancelled(e.id()) || c.expiryOf(e.id()) <= done.at {
				continue
			}
			if !c.ended(e.id(), done.at) {
				c.wrong("partition %d: offset %d was committed at %v, and the request at %d had not ended", done.partition, done.offset, done.at, e.offset)
			}
		}
	}
}
