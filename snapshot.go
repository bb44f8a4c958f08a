package osmosis

import (
	"context"
	"errors"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// What one answer holds of a stream's replies; the client asks on from the
// last of them. The bound is on memory: an answer is made as a whole.
const (
	maxReplies    = 1000
	maxReplyBytes = 8 << 20
)

// snapshot is what a stream looks like at one moment, for the forms that answer
// once instead of following.
type snapshot struct {
	// status and attempt are the latest told.
	status  record.State
	attempt int
	// last is the cursor of the last reply or end; "" before the first.
	last string
	// end is the stream's end, nil before it.
	end *hub.Event
	// final is the last reply; where status is replied it is what the request
	// is answered with.
	final *hub.Entry
	// parts are what it is made of, where it came in parts.
	parts parts

	// replies are those after the client's cursor, and gaps where some are
	// missing. More of them follow where truncated.
	replies   []*hub.Entry
	bytes     int
	gaps      []record.Gap
	truncated bool

	// after is the client's cursor, nil once it was found or where there is none.
	after *hub.Cursor
	// caughtUp says that all was read that the log held when reading began.
	caughtUp bool
	// news says that something came after that.
	news bool
	// ending says that the last reply was read and the end is about to come.
	ending bool
}

// newSnapshot begins with what is known of every accepted request.
func newSnapshot(after *hub.Cursor) *snapshot {
	return &snapshot{status: record.StateQueued, after: after}
}

// read takes events until there are enough or the context ends.
func (s *snapshot) read(ctx context.Context, sub subscription, enough func() bool) error {
	for s.ending || !enough() {
		event, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		s.take(event)
	}
	return nil
}

// take takes one event.
func (s *snapshot) take(e hub.Event) {
	s.news = s.caughtUp && e.Kind != hub.KindCaughtUp
	switch e.Kind {
	case hub.KindCaughtUp:
		s.caughtUp = true
	case hub.KindGap:
		s.gaps = append(s.gaps, e.Gap)
	case hub.KindStatus:
		progress := e.Entry.Reply.Progress()
		s.status, s.attempt = progress.Status, max(s.attempt, progress.Attempt)
	case hub.KindReply:
		// Whoever answers is at it, whether it said so or not.
		s.status, s.attempt = record.StateDelivering, max(s.attempt, e.Entry.Reply.Attempt)
		s.final, s.ending = e.Entry, e.Entry.Reply.Terminal()
		s.parts.take(e.Entry)
		s.last = e.Cursor.String()
		s.add(e)
	case hub.KindEnd:
		s.status, s.attempt = e.End.Status, max(s.attempt, e.End.Attempts)
		s.end, s.ending = &e, false
		s.last = e.Cursor.String()
		if s.after != nil && *s.after == e.Cursor {
			s.found()
		}
	}
}

// add keeps a reply, as far as there is room. While the client's cursor was not
// seen everything before it is kept too: should it not be in the stream at
// all, the client gets the stream from its start.
func (s *snapshot) add(e hub.Event) {
	if s.after != nil && s.after.Mark != hub.MarkExpired {
		at := *s.after
		at.Mark = hub.MarkNone
		if at == e.Cursor {
			marked := s.after.Mark == hub.MarkEnd
			if !marked || e.Entry.Reply.Terminal() {
				s.found()
				return
			}
		}
	}
	size := len(e.Entry.Reply.Body)
	if s.truncated || len(s.replies) == maxReplies || len(s.replies) > 0 && s.bytes+size > maxReplyBytes {
		s.truncated = true
		return
	}
	s.replies = append(s.replies, e.Entry)
	s.bytes += size
}

// found drops what the client has.
func (s *snapshot) found() {
	s.after, s.replies, s.bytes, s.truncated = nil, nil, 0, false
}

// full says that the answer has no room for more, so that reading on is no use.
func (s *snapshot) full() bool { return s.truncated && s.after == nil }

// look reads a stream from its beginning to what the log holds now, and then
// on for as long as the client would have the request held, until there is
// enough. It gives errNotRead where the broker does not say what the log holds.
// That the client has gone is as if its time were up: if it really has, the answer
// does no harm, and if it only looks so, an empty answer would.
func (s *snapshot) look(ctx context.Context, sub subscription, hold time.Duration, enough func() bool) error {
	begun := time.Now()
	limited, cancel := context.WithDeadline(ctx, begun.Add(max(patience, hold)))
	defer cancel()
	err := s.read(limited, sub, func() bool { return s.caughtUp || s.end != nil || s.full() })
	if err == nil && hold > 0 {
		limited, cancel := context.WithDeadline(ctx, begun.Add(hold))
		defer cancel()
		err = s.read(limited, sub, func() bool { return s.end != nil || s.full() || enough() })
	}
	if err != nil && !s.caughtUp && s.last == "" && s.status == record.StateQueued {
		return errNotRead
	}
	// Time is up or the gateway goes down: what is known by now is the answer.
	return nil
}

// errNotRead says that nothing of a stream could be read in time.
var errNotRead = errors.New("the broker does not say what the stream holds")
