package hub

import (
	"io"
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// give queues the events that a record in a leg's partition stands for.
func (s *Subscription) give(l *leg, e *Entry) {
	switch e.Reply.State {
	case "":
		if e.onlyEnds() || l.latest.repeated(&e.Reply) {
			break
		}
		l.latest = partOf(&e.Reply)
		s.queue = append(s.queue, Event{Kind: KindReply, Cursor: e.Cursor, Entry: e})
	case record.StateDelivering, record.StateRetrying:
		s.queue = append(s.queue, Event{Kind: KindStatus, Entry: e})
	}
	if e.Reply.Terminal() {
		s.end(e)
	}
}

// end queues the stream's end as a record tells it.
func (s *Subscription) end(e *Entry) {
	at := e.Cursor
	at.Mark = MarkEnd
	s.queue = append(s.queue, Event{Kind: KindEnd, Cursor: at, Entry: e, End: e.Reply.End()})
	s.finish()
}

// finish lets nothing follow what is queued.
func (s *Subscription) finish() {
	s.done = io.EOF
	s.detach()
}

// settle decides what follows from having seen everything, and tells whether
// anything did: that the stream has ended or expired, or that the subscription
// has caught up. Call it when no leg has anything to give.
func (s *Subscription) settle() bool {
	if s.concluded() || s.expired() {
		return true
	}
	if s.caughtUp || len(s.legs) == 0 {
		return false
	}
	for _, l := range s.legs {
		if l.phase != reading || !l.reached(s.tick) {
			return false
		}
	}
	if s.overdue != 0 && s.expired() {
		return true // the log's end has become known since it was looked for
	}
	s.caughtUp = true
	s.queue = append(s.queue, Event{Kind: KindCaughtUp})
	return true
}

// concluded gives an end that one of two legs has found, when the other has
// given what its log held when the subscription began. Which of them is read
// first is chance, and nothing follows an end.
func (s *Subscription) concluded() bool {
	i := slices.IndexFunc(s.legs, func(l *leg) bool { return l.end != nil })
	if i < 0 {
		return false
	}
	for _, other := range s.legs {
		if other.end == nil && (other.phase != reading || other.gap != nil || !other.reached(s.tick)) {
			return false
		}
	}
	s.give(s.legs[i], s.legs[i].end)
	return true
}

// expired ends the stream if it has expired: the time for replies is over, and
// all that the log held after that was read without an end in it. Where the
// topic is gone the log holds nothing.
func (s *Subscription) expired() bool {
	if s.stream.Expires.IsZero() || time.Now().Before(s.stream.due()) {
		if s.doubted() {
			s.refuse()
			return true
		}
		return false
	}
	if s.overdue == 0 {
		s.overdue = s.hub.tick()
	}
	at := Cursor{Incarnation: s.stream.Incarnation, Partition: s.stream.Partition, Offset: s.stream.Floor, Mark: MarkExpired}
	if !s.gone() {
		if len(s.legs) == 0 {
			return false
		}
		for _, l := range s.legs {
			if l.phase == placing || l.phase == verifying || l.gap != nil || l.end != nil || !l.exhausted(s.overdue) {
				return false
			}
		}
		at.Incarnation = s.legs[0].reader.partition.incarnation
		at.Partition, at.Offset = s.legs[0].reader.partition.index, s.legs[0].last.at
	}
	if !s.doubted() {
		s.queue = append(s.queue, Event{Kind: KindEnd, Cursor: at, End: record.End{Status: record.StateExpired}})
	}
	s.finish()
	return true
}

// gone tells whether a broker said, after the stream had expired, that there is
// no such topic.
func (s *Subscription) gone() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.topic.gone > s.overdue
}
