package ingress

import (
	"sync"
	"time"
)

// batch is the records that travel together to one partition, until there is
// a verdict on them.
type batch struct {
	part     *partition
	entries  []*entry
	size     int
	deadline time.Time // the earliest of its records'
	bytes    []byte    // as encoded, and as sent again; empty before that

	unclear bool // a try may have put it into the log
	tries   int  // that were unclear
	idle    bool // not in a call: waiting for the next try
	due     bool // the next try may start
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// release gives a batch back. One that was tried more than once is left to the
// garbage collector, since the goroutine that waited for its next try may
// still look at it.
func (b *batch) release() {
	if b.tries > 0 {
		return
	}
	clear(b.entries)
	*b = batch{entries: b.entries[:0], bytes: b.bytes[:0]}
	batches.Put(b)
}

// pick takes what a leader may be sent now: batches that are due again, a new
// batch for each free partition with records of its own, and the shared
// records on one of them. It marks their partitions as taken.
func (t *topic) pick(l *leader, picked []*batch) []*batch {
	if l.paused {
		return picked
	}
	open := t.pending == nil // otherwise the partitions are about to change
	shared := open && !t.shared.empty() && t.trusts(l)
	size := 0
	for i := range l.parts {
		at := (l.turn + i) % len(l.parts)
		part := l.parts[at]
		if b := part.batch; b != nil {
			if b.due {
				b.due, b.idle = false, false
				picked = append(picked, b)
				size += len(b.bytes)
			}
			continue
		}
		if !open || part.held || size >= maxCall || !shared && part.waiting.empty() {
			continue
		}
		b := batches.Get().(*batch)
		b.part = part
		t.fill(b, &part.waiting)
		if shared && part.cut == 0 {
			before := len(b.entries)
			t.fill(b, &t.shared)
			if len(b.entries) > before {
				shared, l.turn = false, at+1
			}
		}
		if len(b.entries) == 0 {
			b.release()
			continue
		}
		part.batch = b
		l.busy++
		t.busy++
		size += b.size
		picked = append(picked, b)
	}
	return picked
}

// fill moves records from a queue into a batch, up to the limits. The first
// record fits whatever its size: it may be one that the broker takes alone.
func (t *topic) fill(b *batch, q *queue) {
	for e := q.head; e != nil; e = q.head {
		if n := len(b.entries); n > 0 && (batchHead+b.size+e.size > t.limit || n == b.part.cut) {
			return
		}
		q.remove(e)
		b.entries = append(b.entries, e)
		b.size += e.size
		if b.deadline.IsZero() || e.deadline.Before(b.deadline) {
			b.deadline = e.deadline
		}
	}
}

// free ends a batch's hold on its partition. The caller still has the batch
// and sees to its entries.
func (t *topic) free(b *batch) {
	b.part.batch = nil
	b.part.leader.busy--
	t.busy--
}

// settled follows when batches have been freed and their entries are where
// they belong.
func (t *topic) settled() {
	if t.pending != nil && t.busy == 0 {
		t.apply(*t.pending)
	}
}

// requeue ends a batch that is surely not in the log: its entries go back to
// where they came from, ahead of all that waits. With pin they all stay with
// the partition, so that the next batches are cut from the same records.
func (t *topic) requeue(b *batch, pin bool) {
	t.free(b)
	for i := len(b.entries) - 1; i >= 0; i-- {
		e := b.entries[i]
		switch {
		case t.closed:
			t.refuse(e, t.errClosed())
		case e.placed || pin:
			b.part.waiting.pushFront(e)
		default:
			t.shared.pushFront(e)
		}
	}
	if !t.closed {
		t.armBy(b.deadline)
	}
	b.release()
}
