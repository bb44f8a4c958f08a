package ingress

import (
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// entry is one record on its way. It sits in one queue, or in one batch.
type entry struct {
	prev, next *entry
	in         *queue // where it waits; nil while it is in a batch

	tail     []byte // the encoded record from its key on
	size     int    // what it counts for in a batch and in the queue, in bytes
	placed   bool   // whether number or hash decides the partition
	named    bool   // whether number does
	number   int32
	hash     uint32
	deadline time.Time

	done chan outcome // with room for the one outcome, so that a sender never waits
}

// outcome is what a caller gets.
type outcome struct {
	ack Ack
	err error
}

// maxPooledTail keeps a few huge records from staying in memory for good.
const maxPooledTail = 64 << 10

// load fills the entry. Encoding happens here, in the caller's goroutine, so
// that it runs on all processors; senders only copy.
func (e *entry) load(r Request) {
	e.tail = appendTail(e.tail[:0], r.Record)
	e.size = len(e.tail) + maxRecordHead
	place := r.PlaceBy
	if place == nil {
		place = r.Record.Key
	}
	e.named = r.Partition != nil
	e.placed = e.named || place != nil
	switch {
	case e.named:
		e.number = *r.Partition
	case e.placed:
		e.hash = record.Murmur2(place)
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	e.deadline = time.Now().Add(timeout)
}

func newEntry() any { return &entry{done: make(chan outcome, 1)} }

// release gives an entry back to the pool. Its channel is empty and no sender
// has it.
func (p *Producer) release(e *entry) {
	if cap(e.tail) <= maxPooledTail {
		p.entries.Put(e)
	}
}

// partition gives the entry's partition of n, as record.Partition does for its
// key; false if it names one that is not among them.
func (e *entry) partition(n int) (number int, ok bool) {
	if e.named {
		return int(e.number), e.number >= 0 && int(e.number) < n
	}
	return int(e.hash&0x7fffffff) % n, true
}

// queue holds entries in order. Any of them can be removed, because its caller
// may leave.
type queue struct {
	head, tail *entry
}

func (q *queue) empty() bool { return q.head == nil }

func (q *queue) push(e *entry) {
	e.in, e.prev, e.next = q, q.tail, nil
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
}

func (q *queue) pushFront(e *entry) {
	e.in, e.prev, e.next = q, nil, q.head
	if q.head == nil {
		q.tail = e
	} else {
		q.head.prev = e
	}
	q.head = e
}

func (q *queue) remove(e *entry) {
	if e.prev == nil {
		q.head = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		q.tail = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.in, e.prev, e.next = nil, nil, nil
}

// drain empties the queue and hands each entry over, in order.
func (q *queue) drain(to func(*entry)) {
	for e := q.head; e != nil; e = q.head {
		q.remove(e)
		to(e)
	}
}
