package ingress

import (
	"sync"
	"sync/atomic"
	"time"
)

// batch is the records that travel together to one partition, until there is
// a verdict on them.
type batch struct {
	part *partition
	// entries are the records in their order. One whose time passes while the
	// batch is under way is told and leaves its place empty (nil); the batch goes on.
	entries []*entry
	size    int
	last    time.Time // the latest of the records' deadlines; then the batch is given up

	bytes   []byte      // as encoded, and as sent again
	encoded atomic.Bool // bytes are complete, and the sender no longer reads entries without the mutex

	unclear bool // a try may have put it into the log
	tries   int  // that were unclear
	idle    bool // not in a call: waiting for the next try
	due     bool // the next try may start
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// release gives a batch back. One that was unclear is left to the garbage
// collector: the goroutine that waited for its next try may still look at it,
// and a connection that was given up may still be writing its bytes.
func (b *batch) release() {
	if b.tries > 0 {
		return
	}
	clear(b.entries)
	b.part, b.entries, b.bytes = nil, b.entries[:0], b.bytes[:0]
	b.size, b.last = 0, time.Time{}
	b.encoded.Store(false)
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
	identifying := false
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
		if part.id.producer == noProducer {
			if !part.waiting.empty() || !identifying {
				identifying = true // for shared records one at a time: they can go elsewhere
				t.identify(part)
			}
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
		if e.deadline.After(b.last) {
			b.last = e.deadline
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

// end tells all callers of a batch the same, and frees its partition.
func (t *topic) end(b *batch, err error) {
	t.free(b)
	for _, e := range b.entries {
		if e != nil {
			t.refuse(e, err)
		}
	}
	b.release()
}

// requeue ends a batch that is surely not in the log: its entries go back to
// where they came from, ahead of all that waits. With pin they all stay with
// the partition, so that the next batches are cut from the same records.
func (t *topic) requeue(b *batch, pin bool) {
	t.free(b)
	for i := len(b.entries) - 1; i >= 0; i-- {
		switch e := b.entries[i]; {
		case e == nil:
		case t.closed:
			t.refuse(e, t.errClosed())
		case e.placed || pin:
			b.part.waiting.pushFront(e)
		default:
			t.shared.pushFront(e)
		}
	}
	b.release()
}
