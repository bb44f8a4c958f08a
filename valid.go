package osmosis

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// validTopic holds a topic's name to Kafka's rules.
func validTopic(name string) error {
	const longest = 249
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if name == "." || name == ".." || len(name) > longest || strings.ContainsFunc(name, func(r rune) bool { return !legal(r) }) {
		return fmt.Errorf("topic %q: Kafka takes up to %d letters, digits, dots, underscores and hyphens", name, longest)
	}
	return nil
}

// streamsPath is a path that means the same to a matcher, in a Location and in
// a Caddyfile: no wildcards, placeholders, escapes or empty segments.
var streamsPath = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+/?$`)

// validStreams holds the prefix of stream URLs to such paths.
func validStreams(path string) error {
	if !streamsPath.MatchString(path) {
		return fmt.Errorf("%q cannot be the prefix of stream URLs; write a path of letters, digits and . _ ~ - without wildcards, such as /-/streams", path)
	}
	return nil
}

// validOrigins holds a list of origins to what browsers send in Origin (RFC
// 6454): anything else would never be equal to it.
func validOrigins(origins []string) error {
	for _, origin := range origins {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || !strings.EqualFold(strings.TrimSuffix(origin, "/"), u.Scheme+"://"+u.Host) {
			return fmt.Errorf("cors: %q is no origin; write scheme and host, such as https://app.example.com, or *", origin)
		}
		if strings.ContainsFunc(u.Host, func(r rune) bool { return r == '*' || r <= ' ' || r > '~' }) {
			return fmt.Errorf("cors: %q is no origin that a browser sends; write each host by its name, without wildcards, and one with other letters than a to z as xn--…", origin)
		}
		if host := strings.ToLower(u.Host); hostOf(u.Scheme, host) != host || strings.HasSuffix(host, ":") {
			return fmt.Errorf("cors: %q is no origin that a browser sends; leave out the scheme's own port", origin)
		}
	}
	return nil
}

// validMethods refuses methods that are never queued, and what is none at all.
func validMethods(methods []string) error {
	for _, method := range methods {
		switch method {
		case http.MethodOptions, http.MethodTrace, http.MethodConnect:
			return fmt.Errorf("methods: %s is about the connection or the server and cannot be queued; name methods that have something done, such as POST", method)
		}
	}
	return validTokens("methods", methods)
}

// otherMethods are those that IANA has registered, besides what net/http names.
var otherMethods = strings.Fields(`ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL
	MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH PROPFIND PROPPATCH QUERY REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE
	UPDATEREDIRECTREF VERSION-CONTROL`)

// unheardOf gives the methods that nobody has registered, which may be
// misspelt. HTTP allows them.
func unheardOf(methods []string) []string {
	return slices.DeleteFunc(slices.Clone(methods), func(method string) bool {
		switch method {
		case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
			return true
		}
		return slices.Contains(otherMethods, method)
	})
}

// validTokens holds method and field names to HTTP's grammar (RFC 9110, section 5.6.2).
func validTokens(what string, names []string) error {
	for _, name := range names {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("%s: %q is no name that HTTP knows: letters, digits and hyphens, no blanks", what, name)
		}
	}
	return nil
}

// validListen holds the embedded broker's address to one that workers can dial.
func validListen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("embedded: listen %q: write it as host:port, such as 127.0.0.1:9092", address)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		return fmt.Errorf("embedded: listen %q: name the address that workers dial, since the broker tells it to them", address)
	}
	return nil
}

// validDurations refuses what is less than nothing.
func validDurations(of string, durations map[string]time.Duration) error {
	for name, d := range durations {
		if d < 0 {
			return fmt.Errorf("%s: %s is %s; it has to be longer than 0", of, name, d)
		}
	}
	return nil
}
