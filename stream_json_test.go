package osmosis

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// document is the JSON form of a stream as a client decodes it.
type document struct {
	ID        string
	Status    string
	Attempt   int
	Position  *int64
	ETA       *int64 `json:"eta_seconds"`
	Cursor    string
	Truncated bool
	End       *struct{ Code, Attempts int }
	Gaps      []record.Gap
	Replies   []struct {
		SpecVersion, ID, Source, Type, Subject, Cursor, DataContentType string
		Status                                                          int
		Data                                                            any
		Base64                                                          string `json:"data_base64"`
	}
}

func (a answer) document(t *testing.T) document {
	t.Helper()
	a.want(t, http.StatusOK)
	var d document
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return d
}

func TestStreamAsJSON(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		path := s.path(c)
		a := s.get(path)
		d := a.document(t)
		if d.ID != c.ID || d.Status != "queued" || d.Replies == nil || d.Position != nil || a.Header.Get("Retry-After") == "" {
			t.Errorf("%+v", d)
		}
		s.reply(c, record.Reply{State: record.StateRetrying, Body: []byte(`{"attempt":2,"reason":"busy"}`)})
		if d = s.get(path).document(t); d.Status != "retrying" || d.Attempt != 2 {
			t.Errorf("%+v", d)
		}
		first := s.reply(c, record.Reply{Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"n":1}`), More: true})
		last := s.reply(c, record.Reply{Status: 202, Header: http.Header{"Content-Type": {"image/png"}}, Body: []byte{0xff}})
		a = s.get(path)
		d = a.document(t)
		if d.Status != "replied" || len(d.Replies) != 2 || d.Cursor != last.String()+"-end" || d.End == nil || d.End.Code != 202 {
			t.Fatalf("%+v", d)
		}
		r := d.Replies[0]
		if r.SpecVersion != "1.0" || r.Type != "osmosis.reply" || r.Source != "/osmosis/"+testTopic || r.Subject != c.ID ||
			r.ID != first.String() || r.Cursor != first.String() || r.Data.(map[string]any)["n"] != 1.0 {
			t.Errorf("%+v", r)
		}
		if r := d.Replies[1]; r.Base64 != "/w==" || r.Status != 202 || r.DataContentType != "image/png" {
			t.Errorf("%+v", r)
		}
		if head := s.do("HEAD", path); head.Header.Get("ETag") != a.Header.Get("ETag") || head.Header.Get("Content-Length") != a.Header.Get("Content-Length") {
			t.Errorf("HEAD %v, GET %v", head.Header, a.Header)
		}

		// From a cursor come the replies after it, and only a useless one is a gap.
		if d = s.get(path + "?last-event-id=" + first.String()).document(t); len(d.Replies) != 1 || d.Replies[0].ID != last.String() || d.Gaps != nil || d.Status != "replied" {
			t.Errorf("%+v", d)
		}
		for _, cursor := range []string{last.String(), last.String() + "-end"} {
			if d = s.get(path, "Last-Event-ID", cursor).document(t); len(d.Replies) != 0 || d.Gaps != nil || d.End == nil {
				t.Errorf("%s: %+v", cursor, d)
			}
		}
		for _, cursor := range []string{"nonsense", first.String() + "-end", last.String() + "9"} {
			if d = s.get(path, "Last-Event-ID", cursor).document(t); len(d.Replies) != 2 || len(d.Gaps) != 1 || d.Gaps[0].Reason != "cursor" {
				t.Errorf("%s: %+v", cursor, d)
			}
		}
	})
}

// later runs f after a time, and has the test wait for it.
func later(t *testing.T, d time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-time.After(d)
		f()
	}()
	t.Cleanup(func() { <-done })
}

func TestLongPoll(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		path := s.path(c)
		held := func(headers ...string) (answer, time.Duration) {
			t.Helper()
			begun := time.Now()
			a := s.get(path, headers...)
			return a, time.Since(begun).Truncate(time.Second)
		}
		a, took := held("Prefer", "wait=7")
		if took != 7*time.Second || a.Header.Get("Preference-Applied") != "wait=7" || a.document(t).Status != "queued" {
			t.Errorf("%s after %s: %s", a.Status, took, a.body)
		}
		if _, took = held("Prefer", "wait=100000"); took != defaultMaxWait {
			t.Errorf("held for %s", took)
		}
		etag := a.Header.Get("ETag")
		if !strings.HasPrefix(etag, `W/"queued.0.`) {
			t.Errorf("ETag %s", etag)
		}
		if a, took = held("If-None-Match", etag); a.StatusCode != http.StatusNotModified || took > 2*time.Second {
			t.Errorf("%s after %s", a.Status, took)
		}
		if a, took = held("Prefer", "wait=7", "If-None-Match", `"other", `+etag); a.StatusCode != http.StatusNotModified || took != 7*time.Second || a.body != "" {
			t.Errorf("%s after %s", a.Status, took)
		}
		// Whatever changes lets go of who has the tag, and who has nothing waits for the end.
		later(t, 3*time.Second, func() { s.reply(c, record.Reply{State: record.StateDelivering}) })
		if a, took = held("Prefer", "wait=7", "If-None-Match", etag); a.document(t).Status != "delivering" || took > 4*time.Second {
			t.Errorf("%s after %s", a.Status, took)
		}
		replied := make(chan hub.Cursor, 1)
		later(t, 3*time.Second, func() { replied <- s.reply(c, record.Reply{Body: []byte("1"), More: true}) })
		if a, took = held("Prefer", "wait=7"); a.document(t).Status != "delivering" || took != 7*time.Second {
			t.Errorf("%s after %s", a.Status, took)
		}
		first := <-replied
		// A cursor is held for what comes after it; a state from before does not count.
		if a, took = held("Prefer", "wait=7", "Last-Event-ID", first.String()); a.StatusCode != http.StatusNotModified || took != 7*time.Second {
			t.Errorf("%s after %s: %s", a.Status, took, a.body)
		}
		later(t, 3*time.Second, func() { s.reply(c, record.Reply{Body: []byte("2")}) })
		a, took = held("Prefer", "wait=7", "Last-Event-ID", first.String())
		if d := a.document(t); d.Status != "replied" || len(d.Replies) != 1 || took > 4*time.Second {
			t.Errorf("%+v after %s", d, took)
		}
		// After the end nothing is newer, so nobody is held.
		for _, headers := range [][]string{{"If-None-Match", a.Header.Get("ETag")}, {"Last-Event-ID", a.document(t).Cursor}} {
			if a, took = held(append(headers, "Prefer", "wait=7")...); a.StatusCode != http.StatusNotModified || took > 2*time.Second {
				t.Errorf("%v: %s after %s", headers, a.Status, took)
			}
		}
		if a, took = held("Prefer", "wait=7"); a.document(t).Status != "replied" || took > 2*time.Second {
			t.Errorf("%s after %s", a.Status, took)
		}
	})
}

// One answer holds so many replies, and the client reads on from the last.
func TestJSONIsBounded(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		const all = maxReplies + 200
		for i := range all {
			s.reply(c, record.Reply{Body: fmt.Append(nil, i), More: i < all-1})
		}
		path, after, seen := s.path(c), "", 0
		for {
			d := s.get(path, "Last-Event-ID", after).document(t)
			for _, r := range d.Replies {
				if r.Data != fmt.Sprint(seen) {
					t.Fatalf("%v, want %d", r.Data, seen)
				}
				seen++
			}
			if !d.Truncated {
				if d.Status != "replied" {
					t.Errorf("%s", d.Status)
				}
				break
			}
			if len(d.Replies) != maxReplies || d.Status != "delivering" {
				t.Fatalf("%d replies, %s", len(d.Replies), d.Status)
			}
			after = d.Cursor
		}
		if seen != all {
			t.Errorf("%d replies, want %d", seen, all)
		}
	})
}

// While the broker is away nothing is claimed.
func TestBrokerAway(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		s.cut()
		for suffix, accept := range map[string]string{"": "application/json", "/result": "*/*"} {
			begun := time.Now()
			a := s.get(path+suffix, "Accept", accept).want(t, http.StatusServiceUnavailable, "broker")
			if took := time.Since(begun); took > patience+time.Second || a.Header.Get("Retry-After") == "" {
				t.Errorf("%s after %s", a.Header, took)
			}
		}
		s.get(path, "Accept", "text/html").want(t, http.StatusOK)
	})
}

func TestETagMatches(t *testing.T) {
	const tag = `W/"queued.0.0000abcd"`
	for field, want := range map[string]bool{
		tag: true, `"queued.0.0000abcd"`: true, `"a,b" , ` + tag: true, "*": true,
		"": false, `"a"`: false, `W/"queued.1.0000abcd"`: false, `queued.0.0000abcd`: false, `"` + tag + `"`: false,
	} {
		if got := matches([]string{field}, tag); got != want {
			t.Errorf("%s: %t", field, got)
		}
	}
}

// Where the workers' progress is known a queued request says how far it is
// from its turn; once it is being worked on there is no such place any more.
func TestPosition(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		eta := 1500 * time.Millisecond
		v := visit{settings: s.app.settings, position: func(context.Context) (int64, time.Duration, bool) { return 12, eta, true }}
		ask := func(status record.State) document {
			w := httptest.NewRecorder()
			if err := v.writeSnapshot(w, s.request(http.MethodGet, "/"), &snapshot{status: status}); err != nil {
				t.Fatal(err)
			}
			return answer{w.Result(), w.Body.String()}.document(t)
		}
		if d := ask(record.StateQueued); d.Position == nil || *d.Position != 12 || d.ETA == nil || *d.ETA != 2 {
			t.Errorf("%+v", d)
		}
		eta = -1 // not known
		if d := ask(record.StateQueued); d.Position == nil || d.ETA != nil {
			t.Errorf("%+v", d)
		}
		if d := ask(record.StateDelivering); d.Position != nil || d.ETA != nil {
			t.Errorf("%+v", d)
		}
	})
}

// An exit does not wait for clients that are held.
func TestLongPollOnExit(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		later(t, 3*time.Second, s.leave)
		begun := time.Now()
		if d := s.get(path, "Prefer", "wait=60").document(t); d.Status != "queued" {
			t.Errorf("%+v", d)
		}
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("held for %s", took)
		}
	})
}
