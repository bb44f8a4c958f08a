package deliver

import (
	"net/http"
	"net/url"
	"strings"
)

// place makes absolute what an answer says relative to the request's path: where
// a redirect leads, and which paths a cookie without a Path is for. Its client
// may read it under another path, that of its stream, and would take both for
// what is near that one.
//
// The path is the one that the queue saw. Where a site has taken a prefix off
// before, an answer's own absolute paths are as far from the client's.
func place(h http.Header, path string) {
	base, err := url.ParseRequestURI(path)
	if err != nil {
		return // replay has said what is wrong with it
	}
	for _, name := range []string{"Location", "Content-Location"} {
		for i, value := range h[name] {
			h[name][i] = resolve(base, value)
		}
	}
	around := around(base)
	for i, cookie := range h["Set-Cookie"] {
		if !placed(cookie) {
			h["Set-Cookie"][i] = cookie + "; Path=" + around
		}
	}
}

// resolve gives a reference as one that means the same everywhere on the host.
func resolve(base *url.URL, reference string) string {
	u, err := url.Parse(reference)
	if err != nil || reference == "" || u.IsAbs() || u.Host != "" || strings.HasPrefix(reference, "/") {
		return reference
	}
	absolute := base.ResolveReference(u)
	if strings.HasPrefix(absolute.EscapedPath(), "//") {
		return reference // it would name a host
	}
	return absolute.String()
}

// around gives the path that a cookie is for which does not say it (RFC 6265,
// section 5.1.4).
func around(base *url.URL) string {
	path := base.EscapedPath()
	if i := strings.LastIndexByte(path, '/'); i > 0 && !strings.Contains(path, ";") {
		return path[:i]
	}
	return "/"
}

// placed tells whether a cookie says which paths it is for; of several words on
// that, the last counts.
func placed(cookie string) bool {
	_, attributes, _ := strings.Cut(cookie, ";")
	found := false
	for attribute := range strings.SplitSeq(attributes, ";") {
		name, value, _ := strings.Cut(attribute, "=")
		if strings.EqualFold(strings.TrimSpace(name), "Path") {
			found = strings.HasPrefix(strings.TrimSpace(value), "/")
		}
	}
	return found
}
