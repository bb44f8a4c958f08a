package hub

import (
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Kind tells what an Event says.
type Kind uint8

// The kinds of events that a subscription gives.
const (
	// KindReply is a reply that a worker produced; Entry holds it.
	KindReply Kind = iota + 1
	// KindStatus is a life-cycle record that does not end the stream: delivering, retrying. Entry holds it.
	KindStatus
	// KindGap stands where records are gone or cannot be found; Gap tells which and why.
	KindGap
	// KindEnd is the stream's terminal event, exactly one, and the last event.
	KindEnd
	// KindCaughtUp comes once, when all that the log held when the
	// subscription began has been given. It is no news for clients.
	KindCaughtUp
)

// Event is one step of a stream, in the order of the log.
type Event struct {
	Kind Kind
	// Cursor is where a client resumes after this event: of a reply its
	// record, of an end the record with its mark. It is zero for the other kinds.
	Cursor Cursor
	// Entry is the record behind the event; nil for a gap, for an end by expiry and for catching up.
	Entry *Entry
	// Gap is set for KindGap.
	Gap record.Gap
	// End is set for KindEnd.
	End record.End
}

// Entry is a record in memory, shared by everyone who reads it. Its fields do
// not change once subscribers can see it.
type Entry struct {
	Cursor Cursor
	// Time is the log's, see record time in package broker.
	Time  time.Time
	Reply record.Reply

	size int64 // see cost

	mu      sync.Mutex
	encoded [formats][]byte
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
// others send the same bytes, which nobody may change.
func (e *Entry) Encoded(f Format, encode func(*Entry) []byte) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.encoded[f] == nil {
		e.encoded[f] = encode(e)
	}
	return e.encoded[f]
}

// cost estimates the memory that the entry takes once it is encoded in every
// format: its body some three times, its headers, and what belongs to it.
func (e *Entry) cost() int64 {
	const bookkeeping = 512
	size := bookkeeping + 3*len(e.Reply.Body)
	for name, values := range e.Reply.Header {
		size += len(name)
		for _, v := range values {
			size += 2 * len(v)
		}
	}
	return int64(size)
}
