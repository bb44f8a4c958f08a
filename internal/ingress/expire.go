package ingress

import "time"

// arm sets the topic's alarm, which ends what waits when its time is over.
// There is one for all records, because their timeouts are mostly the same: it
// is set once for the first of them and again when it rings, not once a record.
func (t *topic) arm(at time.Time) {
	t.alarmed = at
	if t.alarm == nil {
		t.alarm = time.AfterFunc(time.Until(at), t.ring)
		return
	}
	t.alarm.Reset(time.Until(at))
}

// armBy sees to it that the alarm rings at a time or before.
func (t *topic) armBy(at time.Time) {
	if t.alarmed.IsZero() || at.Before(t.alarmed) {
		t.arm(at)
	}
}

func (t *topic) ring() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.alarmed.IsZero() {
		return
	}
	if now.Before(t.alarmed) {
		t.arm(t.alarmed)
		return
	}
	t.expire(now)
}

// expire tells the records whose time is over: those that wait are refused,
// those under way are unclear. Batches that are not in a call, and whose last
// record's time is over, are given up. Then the alarm is set for what is next.
func (t *topic) expire(now time.Time) {
	s := scan{topic: t, now: now}
	s.queue(&t.unplaced)
	s.queue(&t.shared)
	var late []*batch
	for _, part := range t.parts {
		s.queue(&part.waiting)
		if b := part.batch; b != nil {
			s.batch(b)
			if b.idle && s.over(b.last) {
				late = append(late, b)
			}
		}
	}
	t.alarmed = time.Time{}
	if !s.next.IsZero() {
		// With thousands of records their deadlines are met a few milliseconds
		// late, rather than by going through all of them for each.
		pace := time.Duration(s.seen/1000) * time.Millisecond
		t.arm(latest(s.next, now.Add(pace)))
	}
	for _, b := range late {
		t.giveUp(b)
	}
	t.settled()
}

// scan is one pass over all that a topic holds.
type scan struct {
	topic *topic
	now   time.Time
	next  time.Time // the earliest deadline that is not over
	seen  int

	unavailable, unclear error // made when needed
}

func (s *scan) over(deadline time.Time) bool {
	if !s.now.Before(deadline) {
		return true
	}
	if s.next.IsZero() || deadline.Before(s.next) {
		s.next = deadline
	}
	return false
}

func (s *scan) queue(q *queue) {
	for e := q.head; e != nil; {
		following := e.next
		s.seen++
		if s.over(e.deadline) {
			if s.unavailable == nil {
				s.unavailable = s.topic.because(ErrUnavailable)
			}
			q.remove(e)
			s.topic.refuse(e, s.unavailable)
		}
		e = following
	}
}

func (s *scan) batch(b *batch) {
	if !b.encoded.Load() {
		// Its sender is reading the entries right now.
		s.over(s.now.Add(time.Millisecond))
		return
	}
	for i, e := range b.entries {
		if e == nil {
			continue
		}
		s.seen++
		if s.over(e.deadline) {
			if s.unclear == nil {
				s.unclear = s.topic.because(ErrUnclear)
			}
			b.entries[i] = nil
			s.topic.refuse(e, s.unclear)
		}
	}
}

// disarm ends the topic's timers for good.
func (t *topic) disarm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarmed = time.Time{}
	for _, timer := range []*time.Timer{t.alarm, t.beside} {
		if timer != nil {
			timer.Stop()
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
