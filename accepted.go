package osmosis

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// acceptance is a request that was accepted, as its client and the handlers
// around this one are told of it.
type acceptance struct {
	hub.Claims
	url string // of its stream
}

// answers are buffers for what is written of an acceptance.
var answers = sync.Pool{New: func() any { return new([]byte) }}

// answer holds the request for the worker's real answer where that is asked
// for, and gives 202 otherwise.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, lease *lease, a *acceptance) error {
	if err := h.seal(a); err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("seal stream token: %w", err))
	}
	if hasLogs(r) {
		if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
			extra.Add(zap.String("osmosis_stream", a.ID))
		}
	}

	header := w.Header()
	prefer := parsePrefer(r.Header)
	wait, applied := prefer.upTo(h.app.settings.maxWait)
	if !prefer.waits && !prefer.async {
		wait = time.Duration(h.Wait)
	}
	final, err := h.await(r, lease, &a.Claims, wait)
	if err != nil {
		applied = nil
	}
	if final == nil && prefer.async {
		applied = append([]string{"respond-async"}, applied...)
	}
	if len(applied) > 0 {
		header.Set("Preference-Applied", strings.Join(applied, ", "))
	}
	if final != nil {
		return writeFinal(w, r, final, h.app.settings.writeTimeout)
	}
	header.Set("Location", a.path())
	// Also where the client seems to have gone: if it has, this does no harm, and
	// to write nothing would be an empty 200.
	if isForm(r.Header) && acceptsHTML(r.Header) {
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	header.Set("Retry-After", pollAfter)
	text := answers.Get().(*[]byte)
	defer answers.Put(text)
	*text = appendAccepted((*text)[:0], a.ID, a.url)
	writeJSON(w, r, http.StatusAccepted, "application/json", *text)
	return nil
}

// seal makes the stream's URL.
func (h *Handler) seal(a *acceptance) error {
	text := answers.Get().(*[]byte)
	defer answers.Put(text)
	url := append(append(append((*text)[:0], a.Scheme...), "://"...), a.Host...)
	url = append(append(url, h.app.settings.streams...), '/')
	url, err := h.app.keys.AppendSeal(url, &a.Claims)
	a.url, *text = string(url), url
	return err
}

// path is what Location says: the URL without scheme and host.
func (a *acceptance) path() string { return a.url[len(a.Scheme)+len("://")+len(a.Host):] }

// placeholder gives what is told to the handlers around this one.
func (a *acceptance) placeholder(name string) (any, bool) {
	switch name {
	case "http.osmosis.stream_id":
		return a.ID, true
	case "http.osmosis.topic":
		return a.Topic, true
	case "http.osmosis.partition":
		return a.Partition, true
	case "http.osmosis.offset":
		return a.Offset, true
	case "http.osmosis.stream_url":
		return a.url, true
	}
	return nil, false
}

// await holds a request until its stream has ended. It gives nil where that takes
// too long, and an error where nothing is held, since as many requests and
// streams are as may be.
func (h *Handler) await(r *http.Request, lease *lease, claims *hub.Claims, wait time.Duration) (*finalReply, error) {
	if wait <= 0 {
		return nil, nil
	}
	ctx, leave, err := h.app.settings.hold(r)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	follow := func() subscription { return lease.hub.Follow(streamOf(*claims), nil) }
	sub := follow()
	defer sub.Close()
	final, err := waitResult(ctx, sub)
	if err != nil {
		return nil, nil // its time is up, or its client or the gateway goes
	}
	final.again = follow
	return final, nil
}

// accepted is the body of 202.
type accepted struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Stream string `json:"stream"`
}

// appendAccepted appends the body of 202, as JSON would have it from accepted.
func appendAccepted(b []byte, id, url string) []byte {
	b = slices.Grow(b, len(id)+len(url)+64)
	b = append(b, `{"id":`...)
	b = appendJSON(b, id)
	b = append(b, `,"status":"queued","stream":`...)
	b = appendJSON(b, url)
	return append(b, '}', '\n')
}

// pollAfter is how often polling a stream URL makes sense, in seconds.
const pollAfter = "1"

// isForm tells whether a browser sent the request from a form.
func isForm(header http.Header) bool {
	kind, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	kind = strings.TrimSpace(kind)
	return strings.EqualFold(kind, "application/x-www-form-urlencoded") || strings.EqualFold(kind, "multipart/form-data")
}

// mediaType gives the media type of a message, without parameters; "" where it
// says none that can be read.
func mediaType(header http.Header) string {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return kind
}
