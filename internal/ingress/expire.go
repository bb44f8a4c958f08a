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

// expire refuses the records that have waited until their deadline, gives up
// the unanswered batches that have, and sets the alarm for the next ones.
func (t *topic) expire(now time.Time) {
	var next time.Time
	note := func(at time.Time) bool {
		if !now.Before(at) {
			return true
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		return false
	}
	var unavailable error
	scan := func(q *queue) {
		for e := q.head; e != nil; {
			following := e.next
			if note(e.deadline) {
				if unavailable == nil {
					unavailable = t.unavailable()
				}
				q.remove(e)
				t.refuse(e, unavailable)
			}
			e = following
		}
	}
	scan(&t.unplaced)
	scan(&t.shared)
	var late []*batch
	for _, part := range t.parts {
		scan(&part.waiting)
		if b := part.batch; b != nil && b.idle && note(b.deadline) {
			late = append(late, b)
		}
	}
	t.alarmed = time.Time{}
	if !next.IsZero() {
		t.arm(next)
	}
	for _, b := range late {
		t.giveUp(b)
	}
	t.settled()
}

// disarm ends the alarm for good.
func (t *topic) disarm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarmed = time.Time{}
	if t.alarm != nil {
		t.alarm.Stop()
	}
}
