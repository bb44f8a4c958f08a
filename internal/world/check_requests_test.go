package world

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
)

// checkRequests: what was accepted is on its topic, where the 202 says, and what
// was refused is not; nothing is there twice.
func (c *checker) checkRequests() {
	for _, s := range c.history.sent {
		w := c.plan.works[s.work]
		found := c.queued[s.claims.ID]
		if s.claims.ID == "" {
			found = nil
		}
		switch {
		case s.accepted && !slices.ContainsFunc(found, func(e entry) bool {
			return e.partition == s.claims.Partition && e.offset == s.claims.Offset && string(e.Value) == strconv.Itoa(s.work)
		}):
			c.wrong("work %d: 202 says %d/%d, where its request is not: it is at %v", s.work, s.claims.Partition, s.claims.Offset, places(found))
		case !s.accepted && !s.unclear && w.once == "" && len(found) > 0:
			c.wrong("work %d was refused (%v) and is on the topic all the same, at %v", s.work, s.err, places(found))
		case !s.accepted && !s.unclear && s.err != nil && !slices.ContainsFunc(refusals, func(err error) bool { return errors.Is(s.err, err) }) && s.gateway != "":
			c.wrong("work %d was refused with an error that nobody knows: %v", s.work, s.err)
		}
		if w.once != "" {
			continue
		}
		if len(found) > 1 {
			c.wrong("work %d is %d times on its topic: at %v", s.work, len(found), places(found))
		}
	}
	for i, s := range c.history.sent {
		for _, later := range c.history.sent[i+1:] {
			if key := c.plan.works[s.work].key; key != "" && key == c.plan.works[later.work].key {
				c.checkPair(s, later)
			}
		}
	}
}

// checkPair: requests of a key lie in the order in which their client sent them.
// One of which the client was not told whether it is queued may come late, but not
// behind another of the same gateway.
func (c *checker) checkPair(s, later *sent) {
	if s.claims.ID == "" || later.claims.ID == "" || !s.accepted && s.gateway != later.gateway {
		return
	}
	first, second := c.queued[s.claims.ID], c.queued[later.claims.ID]
	if len(first) > 0 && len(second) > 0 && first[0].offset > second[0].offset {
		c.wrong("key %s: work %d lies at %d, and work %d, which was sent later, at %d", c.plan.works[s.work].key, s.work, first[0].offset, later.work, second[0].offset)
	}
}

func places(found []entry) (at [][2]int64) {
	for _, e := range found {
		at = append(at, [2]int64{int64(e.partition), e.offset})
	}
	return at
}

// checkOnce: requests with one Idempotency-Key and one body get one stream, and
// none with another body gets any while the claim lives.
func (c *checker) checkOnce() {
	type first struct {
		work int
		id   string
	}
	got := make(map[string]first)
	for _, s := range c.history.sent {
		w := c.plan.works[s.work]
		if w.once == "" || !s.accepted {
			continue
		}
		for _, other := range c.sends[s.work] {
			if other.noted && other.answered < s.at && !s.replayed {
				c.wrong("idempotency key %s: work %d was queued and noted, and is queued again", w.once, s.work)
			}
		}
		was, ok := got[w.once]
		switch {
		case !ok:
			got[w.once] = first{s.work, s.claims.ID}
		case was.work != s.work:
			c.wrong("idempotency key %s: accepted for work %d and for work %d", w.once, was.work, s.work)
		case was.id != s.claims.ID:
			c.wrong("idempotency key %s: accepted with stream %s and with stream %s", w.once, was.id, s.claims.ID)
		}
	}
	for _, s := range c.history.sent {
		w := c.plan.works[s.work]
		if w.once == "" || !errors.Is(s.err, claims.ErrReused) {
			continue
		}
		if was, ok := got[w.once]; ok && was.work == s.work {
			// Another body may have had the key for a while, if its claim was revoked.
			if !slices.ContainsFunc(c.history.sent, func(o *sent) bool { return c.plan.works[o.work].once == w.once && o.work != s.work }) {
				c.wrong("idempotency key %s: 422 for the body that it was used with", w.once)
			}
		}
	}
	// The works of a key have one stream each that was queued, but for those that a
	// client without an answer cannot know of: then it is taken up under its own id.
	byWork := make(map[int]map[string]time.Duration)
	for _, list := range c.logs[orders] {
		for _, e := range list {
			n, err := strconv.Atoi(string(e.Value))
			if err != nil || n >= len(c.plan.works) || c.plan.works[n].once == "" {
				continue
			}
			if byWork[n] == nil {
				byWork[n] = make(map[string]time.Duration)
			}
			byWork[n][e.id()] = c.when(e)
		}
	}
	for n, ids := range byWork {
		if len(ids) > 1 {
			c.wrong("work %d with idempotency key %s is queued under %d stream ids", n, c.plan.works[n].once, len(ids))
		}
	}
}
