package osmosis

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// serveJSON gives what the stream holds now, or with `Prefer: wait=N` once it
// has ended. A client that says what it has, by its cursor or in If-None-Match,
// is held only until there is something newer, and gets 304 if there is not.
//
// The stream is read from its beginning even where the client has a cursor:
// changes of state have no cursor of their own, and the ones before it count
// for what the status is.
func (v *visit) serveJSON(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	hold := v.hold(w)
	sub := v.hub.Follow(streamOf(v.claims), nil)
	defer sub.Close()
	s := newSnapshot(v.cursor.at)
	known := r.Header.Values("If-None-Match")
	newer := func() bool { return false } // without either it waits for the end
	switch {
	case len(known) > 0:
		newer = func() bool { return !matches(known, v.etag(s)) }
	case v.cursor.at != nil || v.cursor.useless:
		newer = func() bool { return v.newer(s) }
	}
	if err := s.look(ctx, sub, hold, newer); err != nil {
		return writeProblem(w, r, unavailable("The broker cannot be reached, so the state of the stream is not known. The request is kept; try again."))
	}
	h := w.Header()
	h.Set("ETag", v.etag(s))
	if len(known) > 0 && matches(known, v.etag(s)) ||
		len(known) == 0 && v.prefer.waits && v.cursor.at != nil && !v.newer(s) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if s.end == nil {
		h.Set("Retry-After", pollAfter)
	}
	return v.writeSnapshot(w, r, s)
}

// hold gives how long the client would have the request held, and tells it so.
func (v *visit) hold(w http.ResponseWriter) time.Duration {
	hold, applied := v.prefer.upTo(v.settings.maxWait)
	if applied != nil {
		w.Header()["Preference-Applied"] = applied
	}
	return hold
}

// newer says whether there is something that a client at its cursor has not
// seen. A change of state counts if it came while the client was held: it has
// no cursor, so one from before would make every poll return at once.
func (v *visit) newer(s *snapshot) bool {
	if s.after != nil || v.cursor.useless || s.news || len(s.replies) > 0 {
		return true
	}
	return s.end != nil && s.end.Cursor != *v.cursor.at
}

// etag names what the client would get: status, attempt and the last cursor,
// which names the life of the topic too; before the first reply the token's
// word on that stands in. Quotes and commas occur in none of them.
func (v *visit) etag(s *snapshot) string {
	last := s.resume()
	if last == "" {
		last = fmt.Sprintf("%08x", v.claims.ReplyIncarnation)
	}
	return fmt.Sprintf(`W/"%s.%d.%s"`, s.status, s.attempt, last)
}

// resume gives the cursor from which the client goes on after this answer.
func (s *snapshot) resume() string {
	if s.truncated && len(s.replies) > 0 {
		return s.replies[len(s.replies)-1].Cursor.String()
	}
	return s.last
}

// matches compares an entity tag with the lines of If-None-Match, weakly (RFC
// 9110, section 8.8.3.2).
func matches(lines []string, etag string) bool {
	etag = strings.TrimPrefix(etag, "W/")
	for known := range list(lines, ',') {
		if known == "*" || strings.TrimPrefix(known, "W/") == etag {
			return true
		}
	}
	return false
}

// jsonStream is the JSON form of a stream, but for its replies. The members
// that the contract does not name follow behind those that it does.
type jsonStream struct {
	ID       string       `json:"id"`
	Status   record.State `json:"status"`
	Attempt  int          `json:"attempt"`
	Position *int64       `json:"position,omitempty"`
	ETA      *int64       `json:"eta_seconds,omitempty"`
	// Cursor is what the client goes on with as last-event-id.
	Cursor string `json:"cursor,omitempty"`
	// Truncated says that there are more replies behind the cursor.
	Truncated bool         `json:"truncated,omitempty"`
	End       *record.End  `json:"end,omitempty"`
	Gaps      []record.Gap `json:"gaps,omitempty"`
}

// writeSnapshot writes the answer. The replies are written as they lie in
// memory, encoded once for all who read them.
func (v *visit) writeSnapshot(w http.ResponseWriter, r *http.Request, s *snapshot) error {
	doc := jsonStream{
		ID: v.claims.ID, Status: s.status, Attempt: s.attempt,
		Cursor: s.resume(), Truncated: s.truncated, Gaps: s.gaps,
	}
	if s.end != nil && !s.truncated {
		doc.End = &s.end.End
	}
	switch {
	case v.cursor.useless:
		doc.Gaps = append([]record.Gap{{Reason: gapCursor}}, doc.Gaps...)
	case s.after != nil && len(s.gaps) == 0:
		doc.Gaps = []record.Gap{{From: s.after.String(), Reason: gapCursor}}
	}
	if s.status == record.StateQueued {
		if ahead, eta, ok := v.position(r.Context()); ok {
			doc.Position = &ahead
			if eta >= 0 {
				seconds := int64((eta + time.Second - 1) / time.Second)
				doc.ETA = &seconds
			}
		}
	}
	head, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encode stream: %w", err)
	}
	head = append(head[:len(head)-1], `,"replies":[`...)
	length := len(head)
	pieces := append(make([][]byte, 0, 2*len(s.replies)+2), head)
	for i, entry := range s.replies {
		if i > 0 {
			pieces = append(pieces, []byte{','})
		}
		pieces = append(pieces, entry.Encoded(hub.FormatCloudEvent, v.encodeCloudEvent))
	}
	pieces = append(pieces, []byte("]}\n"))
	for _, piece := range pieces[1:] {
		length += len(piece)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(length))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_ = newStreamWriter(w, v.settings.writeTimeout).write(pieces...) // who has gone cannot be told
	return nil
}
