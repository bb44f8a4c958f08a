package osmosis

import (
	"context"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// answer holds the request for the worker's real answer where that is asked
// for, and gives 202 otherwise.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, lease *lease, claims hub.Claims, token string) error {
	url := claims.Scheme + "://" + claims.Host + h.app.settings.streams + "/" + token
	path := url[len(claims.Scheme)+len("://")+len(claims.Host):]
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	placeholders := placeholders{claims: &claims, url: url}
	repl.Map(placeholders.get)
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok && hasLogs(r) {
		extra.Add(zap.String("osmosis_stream", claims.ID))
	}

	header := w.Header()
	prefer := parsePrefer(r.Header)
	wait, applied := prefer.upTo(h.app.settings.maxWait)
	if !prefer.waits && !prefer.async {
		wait = time.Duration(h.Wait)
	}
	final, err := h.await(r, lease, claims, wait)
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
	header.Set("Location", path)
	// Also where the client seems to have gone: if it has, this does no harm, and
	// to write nothing would be an empty 200.
	if isForm(r.Header) && acceptsHTML(r.Header) {
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	header.Set("Retry-After", pollAfter)
	writeJSON(w, r, http.StatusAccepted, "application/json", appendAccepted(nil, claims.ID, url))
	return nil
}

// await holds a request until its stream has ended. It gives nil where that takes
// too long, and an error where nothing is held, since as many requests and
// streams are as may be.
func (h *Handler) await(r *http.Request, lease *lease, claims hub.Claims, wait time.Duration) (*finalReply, error) {
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
	follow := func() subscription { return lease.hub.Follow(streamOf(claims), nil) }
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

// placeholders gives what the handler tells about a request to those around it.
type placeholders struct {
	claims *hub.Claims
	url    string
}

func (p *placeholders) get(name string) (any, bool) {
	switch name {
	case "http.osmosis.stream_id":
		return p.claims.ID, true
	case "http.osmosis.topic":
		return p.claims.Topic, true
	case "http.osmosis.partition":
		return p.claims.Partition, true
	case "http.osmosis.offset":
		return p.claims.Offset, true
	case "http.osmosis.stream_url":
		return p.url, true
	}
	return nil, false
}

// pollAfter is how often polling a stream URL makes sense, in seconds.
const pollAfter = "1"

// isForm tells whether a browser sent the request from a form.
func isForm(header http.Header) bool {
	kind := mediaType(header)
	return kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data"
}

// mediaType gives the media type of a message, without parameters; "" where it
// says none that can be read.
func mediaType(header http.Header) string {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return kind
}
