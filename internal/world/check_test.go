package world

import (
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
)

// checker looks at a world that has come to rest.
type checker struct {
	*world
	logs logs
	// queued are the request records, by stream; replies the reply records, by stream
	// and in order; dead the dead letters, by stream.
	queued, replies, dead map[string][]entry
	// tries are those of each stream, and sends those of each work, both in order.
	tries map[string][]*try
	sends map[int][]*sent
}

// check notes all rules that were broken.
func (w *world) check() {
	all, err := w.readLogs(orders, orders+".dlq", jobs, replyTopic, controlTopic, claims.Topic)
	if err != nil {
		w.wrong("the logs cannot be read in the end: %v", err)
		return
	}
	c := &checker{
		world: w, logs: all,
		queued: byStream(all[orders], all[jobs]), replies: byStream(all[replyTopic]), dead: byStream(all[orders+".dlq"]),
		tries: make(map[string][]*try), sends: make(map[int][]*sent),
	}
	for _, t := range w.history.tries {
		c.tries[t.stream] = append(c.tries[t.stream], t)
	}
	for _, s := range w.history.sent {
		c.sends[s.work] = append(c.sends[s.work], s)
	}
	c.checkRequests()
	c.checkOnce()
	c.checkStreams()
	c.checkTries()
	c.checkOrder()
	c.checkCommits()
	c.checkHandOver()
}

// byStream sorts records by their streams.
func byStream(topics ...map[int32][]entry) map[string][]entry {
	found := make(map[string][]entry)
	for _, topic := range topics {
		for _, list := range topic {
			for _, e := range list {
				found[e.id()] = append(found[e.id()], e)
			}
		}
	}
	return found
}

// harmed tells whether one of some kinds of faults was going on in a time, at a
// gateway or for all.
func (c *checker) harmed(g *gateway, from, to time.Duration, kinds ...kind) bool {
	return slices.ContainsFunc(c.history.harms, func(h *harm) bool {
		return (h.gateway == nil || h.gateway == g) && h.from <= to && h.to >= from && slices.Contains(kinds, h.kind)
	})
}

// when gives the time of a record as the history has it.
func (c *checker) when(e entry) time.Duration { return e.at.Sub(c.history.began) }
