package hub

import (
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Entry is a record in memory, shared by everyone who reads it. Its exported
// fields do not change once subscribers can see it.
type Entry struct {
	Cursor Cursor
	// Time is the log's if logTime, else the producer's: see package broker.
	Time  time.Time
	Reply record.Reply

	logTime bool

	cost      int64 // see weigh
	partition *partition

	// The partition's lock guards these.

	grown int64  // by the encoded forms
	tally *int64 // where the entry is charged, nil while nothing of the hub holds it
	aside int    // how many readers' buffers hold it

	mu      sync.Mutex
	encoded [formats][]byte
}

// late reports whether a reply came after its stream had expired. If the log gave
// the record no time of its own, it never is: the producer's clock may be anything,
// and the time that it wrote would let an answer come to nothing that was in time.
func (e *Entry) late(expires time.Time) bool {
	return e.logTime && !expires.IsZero() && e.Time.After(expires)
}

// onlyEnds tells whether the record is the last part of an answer and has nothing
// in it: when the part before was written, nobody knew yet that nothing would
// follow. It ends the stream and is no reply.
func (e *Entry) onlyEnds() bool {
	r := &e.Reply
	return r.State == "" && !r.More && r.Part > 1 && len(r.Body) == 0
}

// Format is one of the wire formats in which an Entry is sent.
type Format uint8

// The wire formats whose encodings an Entry keeps.
const (
	FormatSSE        Format = iota // the event as text/event-stream
	FormatCloudEvent               // the event as CloudEvents JSON
	formats
)

// Encoded gives the record in a wire format. The first reader encodes it, all
// others send the same bytes, which nobody may change. They count as memory of
// the windows for as long as the entry is there, since they may be many times
// what they are made of: a line end is seven bytes in SSE, a control character six in JSON.
func (e *Entry) Encoded(f Format, encode func(*Entry) []byte) []byte {
	e.mu.Lock()
	b := e.encoded[f]
	first := b == nil
	if first {
		b = encode(e)
		e.encoded[f] = b
	}
	e.mu.Unlock()
	if first && e.partition != nil {
		e.partition.grow(e, int64(cap(b)))
		e.partition.hub.evictSome()
	}
	return b
}

// weigh estimates the memory that the entry takes before it is encoded.
func (e *Entry) weigh() int64 {
	const (
		bookkeeping = 512 // the entry, and its places in the window and by stream
		field       = 64  // a name of its own
		value       = 128 // a slot in the map of headers, which has one for each value, and in slices
	)
	size := bookkeeping + len(e.Reply.StreamID) + len(e.Reply.Body)
	for name, values := range e.Reply.Header {
		size += field + len(name)
		for _, v := range values {
			size += value + len(v)
		}
	}
	return int64(size)
}

// size is the memory that the entry takes. Needs the partition's lock.
func (e *Entry) size() int64 { return e.cost + e.grown }

// grow charges what an encoded form takes.
func (p *partition) grow(e *Entry, by int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.grown += by
	if e.tally != nil {
		*e.tally += by
		p.hub.windowBytes.Add(by)
	}
}
