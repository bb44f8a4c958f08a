package autoscale

import (
	"context"
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// heldFor is how long a broker holds a question for records that come.
const heldFor = 10 * time.Second

// hold is a question that waits at a leader for records, in the partitions of all
// topics that are asleep.
type hold struct {
	from   []broker.FetchFrom
	cancel context.CancelFunc
}

// wakening is what such a question came to.
type wakening struct {
	leader   int32
	hold     *hold
	arrivals []broker.Arrival
	err      error
}

// asleep tells whether a watch that wants to be woken has nothing waiting.
func (w *Watch) asleep() bool {
	return len(w.parts) > 0 && !w.topic.gone &&
		!slices.ContainsFunc(w.parts, func(p part) bool { return p.backlog() > 0 })
}

// hold has the questions wait that are to wake somebody, and no others.
func (s *Survey) hold() {
	want := make(map[int32][]broker.FetchFrom)
	for w := range s.wishes() {
		t := w.topic
		if t == nil || t.uneasy || t.err != nil || !w.asleep() {
			continue
		}
		for i, leader := range t.led.Leaders {
			if leader >= 0 && t.ends[i].end >= 0 {
				want[leader] = append(want[leader], broker.FetchFrom{
					Topic: t.name, ID: t.led.ID, Partition: int32(i), Offset: t.ends[i].end, //nolint:gosec // partition numbers are 32 bits
				})
			}
		}
	}
	for leader, from := range want {
		slices.SortFunc(from, broker.FetchFrom.Compare)
		want[leader] = slices.Compact(from)
	}
	for leader, h := range s.held {
		if !slices.Equal(h.from, want[leader]) {
			h.cancel()
			delete(s.held, leader)
		}
	}
	for leader, from := range want {
		if s.held[leader] == nil {
			s.await(leader, from)
		}
	}
}

// await has one question wait.
func (s *Survey) await(leader int32, from []broker.FetchFrom) {
	ctx, cancel := context.WithCancel(s.ctx)
	h := &hold{from: from, cancel: cancel}
	s.held[leader] = h
	s.work.Go(func() {
		defer cancel()
		arrivals, err := s.config.Broker.Arrivals(ctx, leader, from, heldFor)
		select {
		case s.came <- wakening{leader, h, arrivals, err}:
		case <-ctx.Done():
			// What came is still there for the next question, which is asked from
			// the same offsets on.
		}
	})
}

// woken takes in what came, and hands looks to those whom it wakes. They are made
// of the commits of the last look, which are older than the ends, as they should be.
func (s *Survey) woken(by wakening) {
	if s.held[by.leader] != by.hold {
		return // it was given up meanwhile
	}
	delete(s.held, by.leader)
	if by.err != nil {
		for _, f := range by.hold.from {
			if t := s.topics[f.Topic]; t != nil {
				t.uneasy = true
			}
		}
		return
	}
	now := time.Now()
	wish := s.wishes()
	awake := make(map[*Watch]bool)
	for _, a := range by.arrivals {
		t := s.topics[a.From.Topic]
		if t == nil || t.led.ID != a.From.ID || int(a.From.Partition) >= len(t.ends) {
			continue
		}
		e := &t.ends[a.From.Partition]
		if a.Err != nil || a.End <= e.end {
			t.uneasy = true // the next look tells more
			continue
		}
		for _, w := range t.watches {
			if a.Records && wish[w] && w.asleep() {
				awake[w] = true
			}
		}
		e.end = a.End
		e.ages.add(a.End, now)
	}
	for w := range awake {
		w.read(now)
		w.hand(w.measure(now))
	}
}
