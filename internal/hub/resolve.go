package hub

import (
	"slices"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// resolve finds the stream's partitions, again whenever the topic has changed.
func (s *Subscription) resolve() {
	if s.version == s.topic.version.Load() {
		return
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	t := s.topic
	s.version = t.version.Load()
	current := t.is.ID.Incarnation()
	first := len(s.legs) == 0
	if !first && s.legs[0].reader.partition.incarnation != current {
		if !s.doubted() {
			s.from = nil
			s.recreated("")
		}
		s.detach()
	}
	for _, index := range s.partitions(t.is.Partitions()) {
		if slices.ContainsFunc(s.legs, func(l *leg) bool { return l.reader.partition.index == index }) {
			continue
		}
		l := &leg{start: beginning{floor: s.stream.Floor, cursor: noCursor}, since: s.tick}
		switch {
		case s.stream.Incarnation != current:
			l.start.floor = logStart
		case index != s.stream.Partition:
			l.start.floor, l.byTime = logStart, true
		}
		l.reader = reader{partition: t.partition(index), id: s.stream.ID, bell: s.bell, tick: s.hub.tick()}
		l.reader.attach()
		s.legs = append(s.legs, l)
	}
	if first {
		s.aim(current)
	}
}

// partitions lists where the stream's replies may be: in the partition that the
// token names and, where there are more partitions now than then, also where
// the stream id is placed among so many. A topic made again with fewer has the
// latter only.
func (s *Subscription) partitions(now int32) []int32 {
	var at []int32
	if s.stream.Partition < now {
		at = append(at, s.stream.Partition)
	}
	if now != s.stream.Partitions && now > 0 {
		if placed := record.Partition([]byte(s.stream.ID), now); !slices.Contains(at, placed) {
			at = append(at, placed)
		}
	}
	return at
}

// aim gives the client's cursor to the leg that it belongs to. The others begin
// at the stream's beginning: a cursor names one partition, so a client that got
// replies from both, and comes back, gets those of the other again.
func (s *Subscription) aim(current uint32) {
	c := s.from
	s.from = nil
	if c == nil {
		if s.stream.Incarnation != current {
			s.recreated("")
		}
		return
	}
	if c.Mark == MarkExpired {
		s.from = c
		return
	}
	i := slices.IndexFunc(s.legs, func(l *leg) bool { return l.reader.partition.index == c.Partition })
	switch {
	case c.Incarnation != current && s.stream.Incarnation != current:
		s.recreated(c.String())
	case c.Incarnation != current || i < 0:
		s.gap(record.Gap{From: c.String(), Reason: gapCursor})
	default:
		s.legs[i].start.cursor = c.Offset
		s.from = c
	}
}

func (s *Subscription) gap(g record.Gap) {
	s.queue = append(s.queue, Event{Kind: KindGap, Gap: g})
}

func (s *Subscription) recreated(from string) {
	s.gap(record.Gap{From: from, Reason: gapRecreated})
}

// place sends a leg to where it begins, and tells whether that is known.
func (s *Subscription) place(l *leg) bool {
	r := &l.reader
	if l.byTime {
		from, ok := r.partition.locate(s.stream.Issued.Add(-issuedGrace))
		if !ok {
			return false
		}
		l.byTime, l.start.floor = false, from.at
		// An end that was told before the floor was may lie below it.
		l.since = max(l.since, from.asked)
	}
	log, ok := r.bounds(l.since)
	if !ok {
		return false
	}
	to := l.start.land(log)
	if to.ask {
		r.await(l.since)
		return false
	}
	r.seek(to.at)
	switch {
	case to.verify:
		l.phase = verifying
		return true
	case s.doubted():
		l.phase = doubting
		return true
	case to.held:
		l.holdBack(max(l.start.floor, l.start.cursor), to.at)
	case to.gap != "":
		g := record.Gap{Reason: to.gap, To: l.cursor(to.at).String()}
		if l.start.cursor != noCursor {
			g.From = l.cursor(l.start.cursor).String()
		} else {
			g.From = l.cursor(l.start.floor).String()
		}
		s.gap(g)
	}
	if l.start.cursor != noCursor {
		l.start.cursor, s.from = noCursor, nil
	}
	l.phase = reading
	return true
}

// doubted tells whether the client says that the stream has expired.
func (s *Subscription) doubted() bool { return s.from != nil && s.from.Mark == MarkExpired }
