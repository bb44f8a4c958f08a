package osmosis

import (
	"context"
	"net/http"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// parts are the replies that make one response together, as deliver writes them
// for an answer that was flushed in between, or that is larger than a record.
// They are not kept: what is known of them is enough to read them once more when
// the response is written.
type parts struct {
	// first has the response's headers. It is nil where the replies are whole
	// responses of their own.
	first *hub.Entry
	// attempt is the try that they are of, last the number of the latest.
	attempt, last int
	// length is that of all bodies together.
	length int64
}

// take takes the next reply of the stream. The parts of a try that was broken
// off count for nothing once those of another come, and a part that was produced
// twice counts once.
func (p *parts) take(e *hub.Entry) {
	body, ok := p.next(e)
	if ok {
		p.length += int64(len(body))
	}
}

// next gives what a reply adds to the response.
func (p *parts) next(e *hub.Entry) ([]byte, bool) {
	r := &e.Reply
	switch {
	case r.Part == 0:
		*p = parts{}
		return nil, false
	case p.first != nil && r.Attempt < p.attempt:
		return nil, false // late, from a try that another has taken the place of
	case p.first == nil || r.Attempt > p.attempt:
		*p = parts{first: e, attempt: r.Attempt}
	case r.Part <= p.last:
		return nil, false
	}
	p.last = r.Part
	if isEvents(p.first.Reply.Header) && (r.More || len(r.Body) > 0) {
		return newEvent("", r.Event, r.Body), true
	}
	return r.Body, true
}

// isEvents tells whether a response is server-sent events, of which each reply
// is one.
func isEvents(h http.Header) bool { return mediaType(h) == "text/event-stream" }

// write reads the stream again and writes the parts. It stops where they end, or
// where the client or the gateway goes.
func (p parts) write(ctx context.Context, sub subscription, out *streamWriter) {
	defer sub.Close()
	var again parts
	for again.attempt != p.attempt || again.last < p.last {
		event, err := sub.Next(ctx)
		if err != nil {
			return
		}
		if event.Kind != hub.KindReply {
			continue
		}
		body, ok := again.next(event.Entry)
		if ok && again.attempt == p.attempt && out.write(body) != nil {
			return
		}
	}
}

// reply is the response that the parts make, but for its body.
func (p parts) reply() record.Reply { return p.first.Reply }
