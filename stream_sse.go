package osmosis

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// How long an EventSource waits before it connects again. It keeps the last
// word on that until it hears another.
const (
	comeBack       = 2 * time.Second  // after a connection that broke
	comeBackLater  = 10 * time.Second // after being turned away for the number of streams
	comeBackSpread = 3 * time.Second  // what is added to either at random, at most
)

// serveSSE gives the stream as server-sent events. Whatever the broker's state,
// an open token gets 200 and a first line at once: an EventSource gives up for
// good on any other status. The exception is 204, which is meant that way: the
// client has seen the end.
func (v *visit) serveSSE(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if v.knowsTheEnd(ctx) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if v.refused != nil {
		turnAwaySSE(w, r, v.settings.writeTimeout, comeBackLater)
		return
	}
	beginSSE(w)
	if r.Method == http.MethodHead {
		return
	}
	out := eventStream{pieces: newStreamWriter(w, v.settings.writeTimeout)}
	hello := append(newRetry(comeBack), ": osmosis\n\n"...)
	if out.write(hello) != nil {
		return
	}
	// From here on the status is sent, and an error has no one to go to: the
	// client sees its connection end and comes back with its cursor.
	sub, gap := v.follow()
	v.held.add(sub.Close)
	out.more = sub.More
	if gap != nil && out.event(*gap) != nil {
		return
	}
	err := pumpFor(ctx, parkAfter, sub, out.event)
	if errors.Is(err, errQuiet) {
		if v.park(w, r, sub) {
			return
		}
		err = pump(ctx, sub, v.settings.heartbeat, out.event, func() error { return out.write(heartbeat) })
	}
	if errors.Is(err, errExiting) || errors.Is(err, hub.ErrClosed) {
		_ = out.write(newRetry(comeBack))
	}
}

// beginSSE sends the header of a stream.
func beginSSE(w http.ResponseWriter) {
	h := w.Header()
	// Caddy's encode compresses a stream as well, and sends on what is flushed at
	// once if it knows it as one, for which it looks when the header is written.
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx
	h.Set("Incremental", "?1")       // the IETF's word for the same
	w.WriteHeader(http.StatusOK)
}

// turnAwaySSE sends a stream that says nothing but when to come again, at least
// so much later.
func turnAwaySSE(w http.ResponseWriter, r *http.Request, writeTimeout, later time.Duration) {
	beginSSE(w)
	if r.Method != http.MethodHead {
		_ = newStreamWriter(w, writeTimeout).write(newRetry(later))
	}
}

// heartbeat is a comment, which keeps what lies between from taking the
// connection for dead.
var heartbeat = []byte(":\n\n")

// pieces is where an event stream goes, see streamWriter. What was put goes with
// the next that is written, or with the end of the response.
type pieces interface {
	put(piece []byte) error
	write(pieces ...[]byte) error
}

// eventStream sends events as they come.
type eventStream struct {
	pieces
	// more says whether another event follows at once. Those that do travel
	// together: the last reply and the end come as one.
	more func() bool
}

// event sends one step of the stream. It is io.EOF after the end, which goes
// with what ends the response.
func (s eventStream) event(e hub.Event) error {
	switch e.Kind {
	case hub.KindReply, hub.KindStatus:
		event := e.Entry.Encoded(hub.FormatSSE, encodeSSE)
		if s.more() {
			return s.put(event)
		}
		return s.write(event)
	case hub.KindGap:
		return s.write(newEvent("", "gap", e.Gap.AppendJSON(nil)))
	case hub.KindEnd:
		if err := s.put(newEvent(e.Cursor.String(), "end", e.End.AppendJSON(nil))); err != nil {
			return err
		}
		return io.EOF
	}
	return nil
}

// encodeSSE encodes a record as an event: a reply that is text as one without
// a name, which is what onmessage gets, unless it was an event with a name of its
// own; any other reply as `binary`; a change
// of state as `status`, without an id, since it is no place to resume from.
func encodeSSE(e *hub.Entry) []byte {
	id, body := e.Cursor.String(), e.Reply.Body
	switch {
	case e.Reply.State != "":
		return newEvent("", "status", e.Reply.Progress().AppendJSON(nil))
	case utf8.Valid(body):
		return newEvent(id, e.Reply.Event, body)
	default:
		return newEvent(id, "binary", base64.StdEncoding.AppendEncode(nil, body))
	}
}

// newEvent encodes an event. Id and name are the gateway's own and hold no
// line ends; data is anyone's, and each of its lines gets a line of its own, so
// that it cannot name an event, set an id or begin the next event. CR LF, CR and
// LF all end a line, here as at the client; it joins them again with LF.
func newEvent(id, name string, data []byte) []byte {
	b := make([]byte, 0, len(data)+len(id)+len(name)+32)
	if name != "" {
		b = append(append(append(b, "event: "...), name...), '\n')
	}
	if id != "" {
		b = append(append(append(b, "id: "...), id...), '\n')
	}
	start := 0
	for i := 0; i < len(data); i++ {
		if data[i] != '\n' && data[i] != '\r' {
			continue
		}
		b = appendData(b, data[start:i])
		if data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n' {
			i++
		}
		start = i + 1
	}
	return append(appendData(b, data[start:]), '\n')
}

func appendData(b, line []byte) []byte {
	return append(append(append(b, "data: "...), line...), '\n')
}

// newRetry says how long to wait before connecting again: so long, and a time at
// random, so that those who lost their streams together do not come back together.
func newRetry(least time.Duration) []byte {
	b := append(make([]byte, 0, 32), "retry: "...)
	b = strconv.AppendInt(b, spread(least, least+comeBackSpread).Milliseconds(), 10)
	return append(b, "\n\n"...)
}
