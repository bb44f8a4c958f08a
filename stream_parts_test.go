package osmosis

import (
	"net/http"
	"strings"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// An answer in parts is one response for whoever wants the response: as the
// result, and for a request that was held. What a broken try left and what was
// produced twice is not in it.
func TestResultOfParts(t *testing.T) {
	part := func(attempt, number int, body string, more bool) record.Reply {
		return record.Reply{Status: 201, Body: []byte(body), More: more, Attempt: attempt, Part: number, Header: http.Header{"Content-Type": {"text/html"}}}
	}
	large := strings.Repeat("0123456789abcdef", 48<<10)
	for name, test := range map[string]struct {
		replies []record.Reply
		want    string
	}{
		"plain":          {[]record.Reply{part(1, 1, "<p>", true), part(1, 2, "one", true), part(1, 3, "</p>", false)}, "<p>one</p>"},
		"empty end":      {[]record.Reply{part(1, 1, "<p>", true), part(1, 2, "", false)}, "<p>"},
		"tried again":    {[]record.Reply{part(1, 1, "ha", true), part(2, 1, "whole", true), part(2, 2, "!", false)}, "whole!"},
		"produced twice": {[]record.Reply{part(1, 1, "a", true), part(1, 1, "a", true), part(1, 2, "b", true), part(1, 2, "b", true), part(1, 3, "c", false)}, "abc"},
		"large":          {[]record.Reply{part(1, 1, large, true), part(1, 2, large, true), part(1, 3, "end", false)}, large + large + "end"},
	} {
		t.Run(name, func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				c := s.accept()
				for _, r := range test.replies {
					s.reply(c, r)
				}
				a := s.get(s.path(c)+"/result").want(t, http.StatusCreated)
				if a.body != test.want || a.ContentLength != int64(len(test.want)) || a.Header.Get("Content-Type") != "text/html" {
					t.Errorf("%d bytes of %q: %.100q", a.ContentLength, a.Header, a.body)
				}
				s.work(func(request record.Request) []record.Reply {
					replies := make([]record.Reply, len(test.replies))
					for i, r := range test.replies {
						r.StreamID = request.StreamID
						replies[i] = r
					}
					return replies
				})
				if a := s.send(s.post("x", "Prefer", "wait=5")).want(t, http.StatusCreated); a.body != test.want {
					t.Errorf("held: %.100q", a.body)
				}
			})
		})
	}
}

// The events of an upstream have their names on the stream, and are events
// again in the result.
func TestEventsOfUpstream(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		header := http.Header{"Content-Type": {"text/event-stream"}}
		s.reply(c, record.Reply{Header: header, Body: []byte("one\ntwo"), More: true, Attempt: 1, Part: 1})
		s.reply(c, record.Reply{Body: []byte("{}"), Event: "stop", More: true, Attempt: 1, Part: 2})
		s.reply(c, record.Reply{Header: header, Attempt: 1, Part: 3})
		l := s.listen(s.path(c))
		for _, want := range []string{"message one\ntwo", "stop {}"} {
			if e := l.next(); e == nil || e.name+" "+e.data != want {
				t.Errorf("%+v, want %q", e, want)
			}
		}
		if e := l.next(); e == nil || e.name != "end" {
			t.Errorf("%+v", e)
		}
		a := s.get(s.path(c)+"/result").want(t, http.StatusOK)
		if want := "data: one\ndata: two\n\nevent: stop\ndata: {}\n\n"; a.body != want || a.Header.Get("Content-Type") != "text/event-stream" {
			t.Errorf("%q", a.body)
		}
	})
}
