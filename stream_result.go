package osmosis

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// statusHeader says in a response how the request's stream stands.
const statusHeader = "Osmosis-Status"

// finalReply is how a stream ended.
type finalReply struct {
	// end says it in words.
	end record.End
	// reply is the last reply; it counts where the stream was replied to.
	reply record.Reply
	// parts make the body where the reply is one of several that are one
	// response; again reads the stream once more for them.
	parts parts
	again func() subscription
	// sealed says that the response is read under a stream URL, which is kept
	// out of caches and referrers whatever the worker says.
	sealed bool
}

// waitResult reads a stream to its end. It gives the context's error when that
// comes first.
func waitResult(ctx context.Context, sub subscription) (*finalReply, error) {
	s := newSnapshot(nil)
	if err := s.read(ctx, sub, func() bool { return s.end != nil }); err != nil {
		return nil, err
	}
	return s.result(), nil
}

// result gives how the stream ended, nil where it did not yet.
func (s *snapshot) result() *finalReply {
	if s.end == nil {
		return nil
	}
	f := &finalReply{end: s.end.End}
	switch {
	case s.parts.first != nil:
		f.parts, f.reply = s.parts, s.parts.reply()
	case s.final != nil:
		f.reply = s.final.Reply
	}
	return f
}

// serveResult gives the final reply as the response that it stands for. It
// reads the stream itself instead of trusting the client's cursor; that of an
// end only says that the client knows of one, for which it is worth waiting
// although this gateway may not have read as far.
func (v *visit) serveResult(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	hold := v.hold(w)
	if v.cursor.ended() {
		hold = max(hold, patience)
	}
	sub := v.hub.Follow(streamOf(v.claims), nil)
	defer sub.Close()
	s := newSnapshot(nil)
	if err := s.look(ctx, sub, hold, func() bool { return false }); err != nil {
		return writeProblem(w, r, unavailable("The broker cannot be reached, so the result is not known. The request is kept; try again."))
	}
	if f := s.result(); f != nil {
		f.sealed = true
		f.again = func() subscription { return v.hub.Follow(streamOf(v.claims), nil) }
		return writeFinal(w, r, f, v.settings.writeTimeout)
	}
	h := w.Header()
	h.Set(statusHeader, string(s.status))
	h.Set("Retry-After", pollAfter)
	body, err := json.Marshal(struct {
		ID     string       `json:"id"`
		Status record.State `json:"status"`
	}{v.claims.ID, s.status})
	if err != nil {
		return fmt.Errorf("encode pending result: %w", err)
	}
	writeJSON(w, r, http.StatusAccepted, "application/json", append(body, '\n'))
	return nil
}

// writeFinal answers with what a stream ended with: the worker's own response,
// or a problem where there is none. Headers that the gateway has set for itself
// stay. The timeout bounds the write, since the server's own deadline is off.
func writeFinal(w http.ResponseWriter, r *http.Request, f *finalReply, timeout time.Duration) error {
	h := w.Header()
	h.Set(statusHeader, string(f.end.Status))
	switch f.end.Status {
	case record.StateReplied:
	case record.StateFailed:
		return writeProblem(w, r, problem{Status: http.StatusBadGateway, Detail: failure(f.end)})
	case record.StateCancelled:
		return writeProblem(w, r, problem{Status: http.StatusGone, Detail: "The request was cancelled."})
	default:
		return writeProblem(w, r, problem{Status: http.StatusGone, Detail: "No answer came in time. The request may have been done all the same."})
	}
	status, body := f.reply.Status, f.reply.Body
	own := h.Get("Access-Control-Allow-Origin") != ""
	for name, values := range f.reply.Header {
		switch {
		case own && strings.HasPrefix(name, "Access-Control-"), f.sealed && unsealing(name), name == headerReplayed:
		case name == "Vary", name == "Preference-Applied": // lists, to which both add
			for _, value := range values {
				h.Add(name, value)
			}
		default:
			h[name] = slices.Clone(values) // other handlers may write into it, and the reply is not theirs
		}
	}
	switch status {
	case http.StatusResetContent: // has no body either, and unlike the others says so (RFC 9110, section 15.3.6)
		h.Set("Content-Length", "0")
		fallthrough
	case http.StatusNoContent, http.StatusNotModified:
		w.WriteHeader(status)
		return nil
	}
	if h.Get("Content-Type") == "" && len(body) > 0 {
		// Left to itself the server would guess, and could take for a page what
		// a worker meant as text.
		h.Set("Content-Type", typeOf(body))
		h.Set("X-Content-Type-Options", "nosniff")
	}
	length := int64(len(body))
	if f.parts.first != nil {
		length = f.parts.length
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(status)
	out := newStreamWriter(w, timeout)
	switch {
	case r.Method == http.MethodHead:
	case f.parts.first != nil:
		f.parts.write(r.Context(), f.again(), out)
	default:
		_ = out.write(body) // who has gone cannot be told
	}
	return nil
}

// unsealing says whether a worker's header would let a stream URL or what is
// read under it get about.
func unsealing(name string) bool {
	switch name {
	case "Cache-Control", "Expires", "Pragma", "Referrer-Policy":
		return true
	}
	return false
}

// typeOf gives the media type of a body whose worker did not say.
func typeOf(body []byte) string {
	switch {
	case json.Valid(body):
		return "application/json"
	case utf8.Valid(body):
		return "text/plain; charset=utf-8"
	default:
		return "application/octet-stream"
	}
}

// failure tells in a sentence why a request was given up.
func failure(end record.End) string {
	text := "The request was given up"
	switch {
	case end.Attempts == 1:
		text += " after one attempt"
	case end.Attempts > 1:
		text += fmt.Sprintf(" after %d attempts", end.Attempts)
	}
	if end.Reason != "" {
		text += ": " + strings.TrimSuffix(end.Reason, ".")
	}
	return text + "."
}

// Interface guards.
var _ subscription = (*hub.Subscription)(nil)
