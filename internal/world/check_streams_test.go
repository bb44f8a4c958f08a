package world

import (
	"slices"
	"strings"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// checkStreams: each stream that was given out has one end, the same for all who
// read it, at whatever gateways, however often they came back; and its replies
// once and in order.
func (c *checker) checkStreams() {
	judged := make(map[string]bool)
	for _, r := range c.history.reads {
		id := r.of.claims.ID
		switch {
		case r.wrong != "":
			c.wrong("%s: %s", r.name, r.wrong)
			continue
		case r.open || len(r.ends) == 0:
			c.wrong("%s: no end (%s)", r.name, c.plan.works[r.of.work].script)
			continue
		case len(r.ends) > 1:
			c.wrong("%s: %d ends", r.name, len(r.ends))
		}
		for _, gap := range r.gaps {
			c.wrong("%s: gap %s", r.name, gap)
		}
		if c.plan.works[r.of.work].ttl != longTTL && c.harmed(nil, 0, c.history.now(), lateProduces) {
			continue // the fake broker gives a record that it holds the time of its producer, which may be before the expiry
		}
		replies, e, reply, ended := c.story(r.of)
		if !slices.Equal(r.replies, replies) {
			c.wrong("%s: got %v, and the log has %v", r.name, r.replies, replies)
		}
		end := r.ends[0]
		if !ended {
			if end.status != string(record.StateExpired) {
				c.wrong("%s: the end is %s, and the log has none in time", r.name, end.status)
			}
			if end.at < r.of.claims.Expires.Sub(c.history.began) {
				c.wrong("%s: expired at %v, before its time", r.name, end.at)
			}
		} else if is := reply.End(); end.status != string(is.Status) || end.code != is.Code || end.reason != is.Reason ||
			end.cursor != (hub.Cursor{Incarnation: end.cursor.Incarnation, Partition: e.partition, Offset: e.offset, Mark: hub.MarkEnd}) {
			c.wrong("%s: the end is %+v, and the log has %+v at %d/%d", r.name, end, is, e.partition, e.offset)
		}
		if !judged[id] {
			judged[id] = true
			c.judge(r)
		}
	}
}

// story tells from the log what a reader of a stream has to get.
func (c *checker) story(s *sent) (replies []seen, at entry, end record.Reply, ended bool) {
	latest := [2]int{}
	for _, e := range c.replies[s.claims.ID] {
		r, err := record.ParseReply(e.Record)
		if err != nil || e.partition != s.claims.ReplyPartition || e.at.After(s.claims.Expires) {
			continue
		}
		part := [2]int{r.Attempt, r.Part}
		if r.Part == 0 {
			part = [2]int{}
		}
		late := part[1] > 0 && latest[1] > 0 && (part[0] < latest[0] || part[0] == latest[0] && part[1] <= latest[1])
		empty := !r.More && r.Part > 1 && len(r.Body) == 0
		if r.State == "" && !late && !empty {
			latest = part
			replies = append(replies, seen{hub.Cursor{Incarnation: s.claims.ReplyIncarnation, Partition: e.partition, Offset: e.offset}, string(r.Body)})
		}
		if r.Terminal() {
			return replies, e, r, true
		}
	}
	return replies, entry{}, record.Reply{}, false
}

// judge: a stream ends as its script and its tries have it.
func (c *checker) judge(r *reading) {
	w := c.plan.works[r.of.work]
	tries := c.tries[r.of.claims.ID]
	cancelled := c.isCancelled(r.of.claims.ID)
	got := r.body()
	switch r.state() {
	case record.StateReplied:
		if w.topic == jobs {
			if got != whole(w.n, 1, 1) {
				c.wrong("%s: replied %q by a worker", r.name, got)
			}
			break
		}
		if !slices.ContainsFunc(tries, func(t *try) bool {
			all := c.answerOf(w, t)
			return t.how == answered && (got == all || t.sure && strings.HasSuffix(got, all))
		}) {
			c.wrong("%s: replied %q, which no try has answered (%s)", r.name, got, w.script)
		}
		if code := r.ends[0].code; (code == 404) != (w.script.way == refusing) {
			c.wrong("%s: replied with %d (%s)", r.name, code, w.script)
		}
	case record.StateFailed:
		if w.topic == jobs {
			c.wrong("%s: failed, and no worker says so", r.name)
			break
		}
		c.judgeFailed(r, w, tries)
	case record.StateCancelled:
		if !cancelled {
			c.wrong("%s: cancelled, and nobody asked for it", r.name)
		}
	case record.StateExpired:
		if w.ttl == longTTL {
			c.wrong("%s: expired after %v (%s)", r.name, w.ttl, w.script)
		}
	}
	if r.ends[0].reason == "" && r.state() != record.StateReplied && r.state() != record.StateExpired {
		c.wrong("%s: %s without a reason", r.name, r.state())
	}
}

// answerOf is the whole answer of a try.
func (c *checker) answerOf(w work, t *try) string {
	n := 1
	if w.script.way == parts {
		n = w.script.parts
	}
	return whole(w.n, t.attempt, n)
}

// judgeFailed: a stream ends failed when its tries were used up, when an answer
// broke off, or when its time was over; and then there is a dead letter.
func (c *checker) judgeFailed(r *reading, w work, tries []*try) {
	if len(c.dead[r.of.claims.ID]) == 0 {
		c.wrong("%s: failed, and there is no dead letter", r.name)
	}
	half := false
	for _, t := range tries {
		// That an answer begins to go out is committed before its first part does.
		over := t.how == calledOff || t.how == answered && !t.deafened && !c.excused(t)
		half = half || !over && !t.sure && (t.begun || c.plan.works[t.work].script.inParts())
	}
	used, cuts := c.used(tries)
	if used < c.leastAttempts() && cuts < maxCuts && !half && w.ttl == longTTL {
		c.wrong("%s: failed (%s) after %d tries that failed and %d that were cut (%s)", r.name, r.ends[0].reason, used, cuts, w.script)
	}
}

// leastAttempts is the smallest number of attempts that any options had.
func (c *checker) leastAttempts() int {
	least := c.plan.options.Attempts
	for _, f := range c.plan.faults {
		if f.kind == reloads {
			least = 2
		}
	}
	return least
}
