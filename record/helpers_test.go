package record

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// headers makes record headers of names and values in turn.
func headers(pairs ...string) []Header {
	out := make([]Header, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, Header{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return out
}

// lines writes headers as text, one a line, so that tests can compare and show them.
func lines(headers []Header) []string {
	out := make([]string, len(headers))
	for i, h := range headers {
		out[i] = fmt.Sprintf("%s: %q", h.Key, h.Value)
	}
	return out
}

// checkHTTPHeader holds what came out of a record against what net/http writes.
func checkHTTPHeader(t *testing.T, h http.Header) {
	t.Helper()
	for name, values := range h {
		if name != http.CanonicalHeaderKey(name) || own(strings.ToLower(name)) || len(values) == 0 {
			t.Errorf("header %q: %q", name, values)
		}
		for _, v := range values {
			if strings.ContainsAny(v, "\r\n\x00") || v != strings.Trim(v, " \t") {
				t.Errorf("header %q has value %q", name, v)
			}
		}
	}
}
