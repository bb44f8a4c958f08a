package osmosis

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// problem is an error as a client sees it (RFC 9457). Its texts tell what went
// wrong and what to do, and hold nothing secret: they may end up in logs.
type problem struct {
	Status int
	// Title names the kind of problem. Default: the status' own name.
	Title string
	// Detail is about this request.
	Detail string
	// RetryAfter is when to try again; 0 says nothing about it.
	RetryAfter time.Duration
}

// problemBody is the JSON of a problem. Its type is about:blank, which is left
// out: the status says it all.
type problemBody struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// challenge goes with 401, which has to have one (RFC 9110, section 15.5.2). How
// clients say who they are is up to the site, and may be no scheme of HTTP but a
// cookie: where nothing of the site's has asked, this names what wants to know,
// and no browser shows a dialog for it.
const challenge = `Osmosis realm="requests of one user"`

// writeProblem answers with a problem. Where a person looks at a page and the
// site has error pages of its own (handle_errors), it returns the error for
// them instead of writing one; nothing must have been written before.
func writeProblem(w http.ResponseWriter, r *http.Request, p problem) error {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusUnauthorized && h.Get("WWW-Authenticate") == "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", wholeSeconds(p.RetryAfter))
	}
	if acceptsHTML(r.Header) && hasErrorPages(r) {
		text := p.Detail
		if text == "" {
			text = p.Title
		}
		return caddyhttp.Error(p.Status, errors.New(text))
	}
	body, err := json.Marshal(problemBody{Title: p.Title, Status: p.Status, Detail: p.Detail})
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("encode problem: %w", err))
	}
	writeJSON(w, r, p.Status, "application/problem+json", append(body, '\n'))
	return nil
}

// writeJSON answers with a small body. That the client is gone is its affair:
// there is no one left to tell.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, mediaType string, body []byte) {
	h := w.Header()
	values := [...]string{mediaType, strconv.Itoa(len(body)), "nosniff"} // one piece of memory for all
	h["Content-Type"], h["Content-Length"], h["X-Content-Type-Options"] = values[0:1:1], values[1:2:2], values[2:3:3]
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// appendJSON appends a text in JSON. Most have nothing to escape.
func appendJSON(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, err := json.Marshal(text)
			if err != nil {
				panic(err) // no text fails
			}
			return append(b, escaped...)
		}
	}
	return append(append(append(b, '"'), text...), '"')
}

// hasLogs says whether the site that serves this request has an access log.
func hasLogs(r *http.Request) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return !ok || server == nil || server.Logs != nil
}

// hasErrorPages says whether the site that serves this request has handle_errors routes.
func hasErrorPages(r *http.Request) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && server != nil && server.Errors != nil && len(server.Errors.Routes) > 0
}

// wholeSeconds is a duration as Retry-After has it: whole seconds, at least one.
func wholeSeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}
