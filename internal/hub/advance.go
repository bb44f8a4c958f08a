package hub

import "github.com/osmosis-gateway/caddy-osmosis/record"

// advance moves one leg on until it has queued an event or there is nothing for it.
func (s *Subscription) advance(l *leg) {
	for len(s.queue) == 0 && s.done == nil {
		if l.phase == placing {
			if !s.place(l) {
				return
			}
			continue
		}
		if l.end != nil {
			return
		}
		e, out := l.reader.read()
		switch out {
		case nothing:
			if !s.pause(l) {
				return
			}
		case removed:
			s.shorten(l)
		case beyond:
			s.truncated(l)
		case found:
			s.meet(l, e)
		}
	}
}

// meet takes an entry that a leg has come to.
func (s *Subscription) meet(l *leg, e *Entry) {
	late := e.late(s.stream.Expires)
	switch l.phase {
	case verifying:
		s.verify(l, e, late)
		return
	case doubting:
		if !late && e.Reply.Terminal() {
			s.refuse()
		}
		return
	}
	switch {
	case late: // it is kept, and nobody waits for it any more
	case l.gap == nil:
		s.giveFrom(l, e)
	case e.Reply.Terminal():
		l.release()
	default:
		if l.passed++; l.passed == maxPassed {
			s.gap(*l.gap)
			l.release()
		}
	}
}

// giveFrom gives what a leg has found, but for an end that has to wait.
func (s *Subscription) giveFrom(l *leg, e *Entry) {
	if e.Reply.Terminal() && len(s.legs) > 1 {
		l.end = e
		return
	}
	s.give(l, e)
}

// verify checks the first record found at or after the client's cursor.
func (s *Subscription) verify(l *leg, e *Entry, late bool) {
	marked := s.from.Mark == MarkEnd
	switch {
	case e.Cursor.Offset != l.start.cursor || late || marked && !e.Reply.Terminal():
		s.refuse()
	case marked:
		s.finish()
	case e.Reply.Terminal():
		s.end(e)
	default:
		l.phase, l.start.cursor, s.from = reading, noCursor, nil
		l.latest = partOf(&e.Reply)
	}
}

// refuse tells that the client's cursor is of no use, and begins anew.
func (s *Subscription) refuse() {
	s.gap(record.Gap{From: s.from.String(), Reason: gapCursor})
	s.from = nil
	for _, l := range s.legs {
		if l.phase == verifying || l.phase == doubting {
			l.phase, l.gap = reading, nil
			s.restart(l)
		}
	}
}

// restart sends a leg to the stream's beginning, or to the log's where the log
// begins later. The gap that this is about was told.
func (s *Subscription) restart(l *leg) {
	log, _ := l.reader.bounds(0)
	from := l.start
	from.cursor = noCursor
	l.start.cursor = noCursor
	l.live, l.last, l.latest = target{}, target{}, answerPart{}
	log.fresh = true
	l.reader.seek(from.land(log).at)
}

// pause handles a leg for which there is nothing now, and tells whether that
// has brought it on.
func (s *Subscription) pause(l *leg) bool {
	switch {
	case l.phase == verifying:
		if at, _ := l.reader.standing(); at > l.start.cursor {
			s.refuse()
			return true
		}
	case l.phase == reading && l.gap != nil && l.reached(s.tick):
		s.gap(*l.gap)
		l.release()
		return true
	}
	return false
}

// shorten handles a log that now begins after the leg.
func (s *Subscription) shorten(l *leg) {
	at, _ := l.reader.standing()
	log, ok := l.reader.bounds(0)
	if !ok {
		return
	}
	l.reader.seek(log.start)
	switch l.phase {
	case verifying:
		s.from, l.start.cursor, l.phase = nil, noCursor, reading
		l.holdBack(at, log.start)
	case reading:
		l.holdBack(at, log.start)
	}
}

// truncated handles a log that was cut off before the leg: brokers have lost
// records. What was written in their place cannot be told from what the client
// has seen, so it gets everything again. Its floor was seen in the log as it
// was; in this one its replies may lie from the cut on.
func (s *Subscription) truncated(l *leg) {
	at, _ := l.reader.standing()
	s.gap(record.Gap{From: l.cursor(at).String(), Reason: gapTruncated})
	l.gap = nil
	if l.phase == verifying {
		s.from, l.phase = nil, reading
	}
	if cut := l.reader.lost(); cut != nil {
		l.start.floor = min(l.start.floor, *cut)
	}
	s.restart(l)
}
