package osmosis

import (
	"fmt"
	"net"
	"net/url"
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

// validOrigins holds a list of origins to what browsers send in Origin (RFC
// 6454): anything else would never be equal to it.
func validOrigins(origins []string) error {
	for _, origin := range origins {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err != nil || u.Scheme == "" || u.Host == "" || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" || u.User != nil {
			return fmt.Errorf("cors: %q is no origin; write scheme and host, such as https://app.example.com, or *", origin)
		}
	}
	return nil
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

// validListen holds an address to listen on to host:port.
func validListen(address string) error {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return fmt.Errorf("embedded: listen %q: write it as host:port, such as 127.0.0.1:9092", address)
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
