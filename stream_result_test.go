package osmosis

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestResult(t *testing.T) {
	for name, test := range map[string]struct {
		reply       record.Reply
		status      int
		osmosis     record.State
		contentType string
		body        string
	}{
		"typed":     {record.Reply{Status: 201, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<p>")}, 201, record.StateReplied, "text/html", "<p>"},
		"JSON":      {record.Reply{Body: []byte(`{"a":1}`)}, 200, record.StateReplied, "application/json", `{"a":1}`},
		"text":      {record.Reply{Body: []byte("<html>")}, 200, record.StateReplied, "text/plain; charset=utf-8", "<html>"},
		"bytes":     {record.Reply{Body: []byte{0xff}}, 200, record.StateReplied, "application/octet-stream", "\xff"},
		"empty":     {record.Reply{}, 200, record.StateReplied, "", ""},
		"204":       {record.Reply{Status: 204, Body: []byte("not allowed")}, 204, record.StateReplied, "", ""},
		"205":       {record.Reply{Status: 205, Body: []byte("not allowed")}, 205, record.StateReplied, "", ""},
		"304":       {record.Reply{Status: 304}, 304, record.StateReplied, "", ""},
		"an error":  {record.Reply{Status: 503, Body: []byte("1")}, 503, record.StateReplied, "application/json", "1"},
		"cancelled": {record.Reply{State: record.StateCancelled}, 410, record.StateCancelled, "application/problem+json", "cancelled"},
		"failed": {
			record.Reply{State: record.StateFailed, Body: []byte(`{"attempts":3,"reason":"no such order"}`)},
			502, record.StateFailed, "application/problem+json", "given up after 3 attempts: no such order.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				c := s.accept()
				path := s.path(c) + "/result"
				a := s.get(path).want(t, http.StatusAccepted, c.ID, `"status":"queued"`)
				if a.Header.Get("Retry-After") == "" || a.Header.Get(statusHeader) != "queued" {
					t.Errorf("%v", a.Header)
				}
				s.reply(c, test.reply)
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					// Nothing of what it is asked with is applied to another's response.
					a = s.do(method, path, "Accept", "image/png", "If-None-Match", "*", "Range", "bytes=0-0")
					if a.StatusCode != test.status || a.Header.Get(statusHeader) != string(test.osmosis) || a.Header.Get("Content-Type") != test.contentType {
						t.Errorf("%s: %s %v", method, a.Status, a.Header)
					}
					switch {
					case method == http.MethodHead:
						if a.body != "" {
							t.Errorf("HEAD: %q", a.body)
						}
					case test.osmosis == record.StateReplied && a.body != test.body, !strings.Contains(a.body, test.body):
						t.Errorf("%q, want %q", a.body, test.body)
					}
				}
			})
		})
	}
}

// The worker's headers are the response's, except for what would let the
// stream URL get about.
func TestResultHeaders(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		s.reply(c, record.Reply{Status: 303, Header: http.Header{
			"Location": {"/orders/7"}, "Set-Cookie": {"a=1", "b=2"}, "Cache-Control": {"public, max-age=60"},
			"Referrer-Policy": {"unsafe-url"}, "Vary": {"Cookie"}, "Etag": {`"x"`},
		}})
		a := s.get(s.path(c)+"/result").want(t, http.StatusSeeOther)
		for name, want := range map[string]string{
			"Location": "/orders/7", "Set-Cookie": "a=1|b=2", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Vary": "Accept, Prefer, Origin|Cookie", "Etag": `"x"`, "Content-Length": "0",
		} {
			if got := strings.Join(a.Header.Values(name), "|"); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

func TestResultHolds(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		path := s.path(c) + "/result"
		begun := time.Now()
		s.get(path, "Prefer", "wait=9").want(t, http.StatusAccepted)
		if took := time.Since(begun).Truncate(time.Second); took != 9*time.Second {
			t.Errorf("held for %s", took)
		}
		later(t, 3*time.Second, func() { s.reply(c, record.Reply{Body: []byte("1"), More: true}) })
		later(t, 4*time.Second, func() { s.reply(c, record.Reply{Body: []byte("2")}) })
		// Who has seen the end comes from another gateway, or was quicker than this one.
		begun = time.Now()
		end := hub.Cursor{Incarnation: c.ReplyIncarnation, Offset: c.Floor, Mark: hub.MarkEnd}
		if a := s.get(path+"?last-event-id="+end.String()).want(t, http.StatusOK); a.body != "2" {
			t.Errorf("%q", a.body)
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("held for %s", took)
		}
	})
}

// waitResult is what holds a request for its real answer.
func TestWaitResult(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		sub := s.app.inside.hub.Follow(streamOf(c), nil)
		defer sub.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if f, err := waitResult(ctx, sub); f != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, %v", f, err)
		}
		s.reply(c, record.Reply{Body: []byte("part"), More: true})
		s.reply(c, record.Reply{Status: 201, Body: []byte("whole"), Header: http.Header{"Cache-Control": {"max-age=60"}}})
		f, err := waitResult(t.Context(), sub)
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		w.Header().Set("Cache-Control", "no-store")
		if err := writeFinal(w, s.request(http.MethodPost, "/orders"), f, time.Second); err != nil {
			t.Fatal(err)
		}
		if w.Code != 201 || w.Body.String() != "whole" || w.Header().Get("Cache-Control") != "max-age=60" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	})
}

// rewriting replaces in header values where they lie, as Caddy's `header` does
// with a search and a replacement, when the header is written.
type rewriting struct{ http.ResponseWriter }

func (w rewriting) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w rewriting) WriteHeader(status int) {
	values := w.Header()["X-Next"]
	for i := range values {
		values[i] = strings.ReplaceAll(values[i], "/a", "/a/a")
	}
	w.ResponseWriter.WriteHeader(status)
}

// What handlers around the gateway do to a response's header is done to that
// response, and not to the reply in memory, which others get as well.
func TestResultHeaderIsTheResponsesOwn(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(rewriting{w}, r) })
		c := s.accept()
		s.reply(c, record.Reply{Header: http.Header{"X-Next": {"/a"}}, Body: []byte("done")})
		for range 2 {
			a := s.get(s.path(c)+"/result", "Prefer", "wait=5").want(t, http.StatusOK)
			if got := a.Header.Get("X-Next"); got != "/a/a" {
				t.Errorf("X-Next: %s", got)
			}
		}
	})
}
