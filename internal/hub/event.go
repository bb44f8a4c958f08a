package hub

import (
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Kind tells what an Event says.
type Kind uint8

// The kinds of events that a subscription gives.
const (
	// KindReply is a reply that a worker produced; Entry holds it. The last part of
	// an answer in parts is none if it is empty.
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
