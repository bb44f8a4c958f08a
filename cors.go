package osmosis

import (
	"net/http"
	"slices"
	"strings"
)

// exposed are the response headers that a page of another site may read.
const exposed = "Location, Retry-After, Preference-Applied, ETag, Osmosis-Status, Idempotent-Replayed"

// maxRequestHeaders bounds the list of headers that a preflight asks for and
// that is sent back to it.
const maxRequestHeaders = 2048

// crossOrigin are the origins whose pages may use a route from another site,
// each as a scheme and host such as https://app.example.com; "*" is all of
// them, without credentials. Empty: none.
type crossOrigin []string

// permits says whether a page of this origin may use the route.
func (c crossOrigin) permits(origin string) bool {
	return c.names(origin) || slices.Contains(c, "*")
}

// names says whether the origin is one of those listed by name, which are the
// ones that may send credentials.
func (c crossOrigin) names(origin string) bool {
	return origin != "*" && slices.ContainsFunc(c, func(o string) bool {
		return strings.EqualFold(strings.TrimSuffix(o, "/"), origin)
	})
}

// allow tells the browser what a page of another site may do here, methods
// being a list such as "GET, HEAD". It is true when the request was no more
// than that question, a preflight, and has been answered.
func (c crossOrigin) allow(w http.ResponseWriter, r *http.Request, methods string) (preflight bool) {
	if len(c) == 0 {
		return false
	}
	h := w.Header()
	vary(h, "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !c.permits(origin) {
		return false
	}
	if c.names(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	} else {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		h.Set("Access-Control-Expose-Headers", exposed)
		return false
	}
	vary(h, "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", methods)
	// Which headers a worker understands is for the route's `headers` to say,
	// not for this list, so whatever is asked for is allowed.
	if names := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ","); names != "" && len(names) <= maxRequestHeaders {
		h.Set("Access-Control-Allow-Headers", names)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// admits says whether a WebSocket may be opened by the page that asks for it:
// one of the site itself, one of an origin that the routes list, or something
// that is no page, since only browsers send Origin. Credentials come with a
// WebSocket whatever the page, so "*" admits none to a stream that is bound, and
// none whose browser sends any.
func (c crossOrigin) admits(r *http.Request, bound bool) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	if len(origins) > 1 {
		return false
	}
	scheme, host := originOf(r)
	if sameOrigin(origins[0], scheme, host) || c.names(origins[0]) {
		return true
	}
	credentials := bound || r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != ""
	return c.permits(origins[0]) && !credentials
}

// sameOrigin compares the text of an Origin header with a scheme and a host as
// originOf gives them.
func sameOrigin(origin, scheme, host string) bool {
	s, h, ok := strings.Cut(strings.ToLower(origin), "://")
	return ok && s == scheme && hostOf(s, h) == host
}

// vary adds a name to Vary where it is not yet.
func vary(h http.Header, name string) {
	for v := range list(h.Values("Vary"), ',') {
		if v == "*" || strings.EqualFold(v, name) {
			return
		}
	}
	h.Add("Vary", name)
}
