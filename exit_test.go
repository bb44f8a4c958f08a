package osmosis

import (
	"net/http"
	"strings"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Caddy stops its apps in no particular order. When this one's turn comes
// before the servers', streams are let in and served as before.
func TestStopLeavesTheServersWhatTheyNeed(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		if err := s.app.Stop(); err != nil {
			t.Fatal(err)
		}
		c := s.accept()
		l := s.listen(s.path(c))
		cursor := s.reply(c, record.Reply{Body: []byte("done")})
		l.want("message", cursor.String(), "done")
	})
}

// A stream asked for when the configuration has ended is not there now. Only
// an EventSource cannot be told so: it would never come again.
func TestStreamsOfAConfigurationThatHasEnded(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		own := s.app.shared
		s.app.plan.insideKey, s.app.shared = "gone", new(share)
		defer func() { s.app.shared = own }()
		a := s.get(s.path(c), "Accept", "text/event-stream")
		a.want(t, http.StatusOK)
		if !strings.HasPrefix(a.body, "retry: ") || strings.Count(a.body, "\n") != 2 {
			t.Errorf("%q", a.body)
		}
		s.do(http.MethodHead, s.path(c), "Accept", "text/event-stream").want(t, http.StatusOK)
		for _, form := range []string{"application/json", "text/html"} {
			a := s.get(s.path(c), "Accept", form)
			a.want(t, http.StatusServiceUnavailable)
			if a.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %v", form, a.Header)
			}
		}
		s.get(s.path(c)+"/result", "Accept", "text/event-stream").want(t, http.StatusServiceUnavailable)
	})
}
