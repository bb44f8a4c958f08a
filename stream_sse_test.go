package osmosis

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// normal is what a browser makes of the line ends in data.
func normal(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

func TestAppendEvent(t *testing.T) {
	for name, data := range map[string]string{
		"empty":         "",
		"one line":      "hello",
		"LF":            "a\nb",
		"CR LF":         "a\r\nb",
		"CR":            "a\rb",
		"mixed":         "a\n\rb\r\r\nc\n\n",
		"ends with LF":  "a\n",
		"ends with CR":  "a\r",
		"leading space": " a",
		"a colon":       ": a",
		"another event": "a\n\nevent: end\nid: 0\ndata: forged\n\n",
		"by CR":         "a\r\revent: end\rid: 0\rdata: forged\r\r",
		"NUL":           "a\x00b",
		"a mark":        "\uFEFFa",
		"separators":    "a\u2028b\u0085c\vd\fe",
	} {
		t.Run(name, func(t *testing.T) {
			got := parseSSE(string(newEvent("00000000-1-2", "", []byte(data))))
			want := sseEvent{"message", "00000000-1-2", normal(data)}
			if len(got) != 1 || got[0] != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// FuzzSSE reads back what was written of any reply: exactly one event, with
// the id that names it and the data that was given.
func FuzzSSE(f *testing.F) {
	for _, seed := range []string{"", "hello", "a\r\nb\rc\nd", "\r", "\n\n", "a\x00", "\xff\xfe", "data: x\n\nevent: end\n\n", ": \r\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		cursor := hub.Cursor{Incarnation: 0xabc, Partition: 3, Offset: 17}
		before := string(body)
		text := string(encodeSSE(&hub.Entry{Cursor: cursor, Reply: record.Reply{Status: 200, Body: body}}))
		if string(body) != before {
			t.Fatal("the body was changed")
		}
		got := parseSSE(text + "data: next\n\n")
		want := sseEvent{"message", "00000abc-3-17", normal(string(body))}
		if !utf8.Valid(body) {
			want.name, want.data = "binary", base64.StdEncoding.EncodeToString(body)
		}
		if len(got) != 2 || got[0] != want || got[1].data != "next" || got[1].name != "message" {
			t.Fatalf("%q gave %q, want %q", text, got, want)
		}
	})
}

func TestStreamAsEvents(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		l := s.listen(s.path(c))
		s.reply(c, record.Reply{State: record.StateDelivering, Body: []byte(`{"attempt":1}`)})
		l.want("status", "", `{"status":"delivering","attempt":1}`)
		first := s.reply(c, record.Reply{Body: []byte("half\r\ndone"), More: true})
		l.want("message", first.String(), "half\ndone")
		second := s.reply(c, record.Reply{Body: []byte{0xff, 0}, More: true})
		l.want("binary", second.String(), "/wA=")
		header := http.Header{"Content-Type": {"text/plain"}, "Set-Cookie": {"a=b"}}
		last := s.reply(c, record.Reply{Status: 201, Header: header, Body: []byte("done"), Attempt: 2})
		l.want("message", last.String(), "done")
		end := last
		end.Mark = hub.MarkEnd
		l.want("end", end.String(), `{"status":"replied","code":201,"headers":{"content-type":["text/plain"]},"attempts":2}`)
		l.ends()

		// A reconnect gets what comes after its cursor, from any form of it.
		l = s.listen(s.path(c), "Last-Event-ID", first.String())
		l.want("binary", second.String(), "/wA=")
		l.want("message", last.String(), "done")
		if e := l.next(); e.name != "end" {
			t.Errorf("%v", e)
		}
		l = s.listen(s.path(c) + "?last-event-id=" + last.String())
		if e := l.next(); e.name != "end" || e.id != end.String() {
			t.Errorf("%v", e)
		}
		l.ends()
		a := s.get(s.path(c), "Accept", "text/event-stream", "Last-Event-ID", end.String())
		a.want(t, http.StatusNoContent)
	})
}

func TestStreamBegins(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		s.cut() // an event stream opens whatever the broker's state
		begun := time.Now()
		l := s.listen(s.path(c))
		for range 4 { // retry, a blank line, a comment, a blank line
			line, err := l.lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			l.parser.line(strings.TrimSuffix(line, "\n"))
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("the first bytes took %s", took)
		}
		if p := l.parser; p.comments != 1 || p.retry < comeBack || p.retry > comeBack+comeBackSpread {
			t.Errorf("%d comments, retry %s", p.comments, p.retry)
		}
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "Vary": "Accept, Prefer, Origin", "Referrer-Policy": "no-referrer",
			"X-Accel-Buffering": "no", "Incremental": "?1", "Content-Length": "",
		} {
			if got := l.response.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	})
}

// A silent stream gets comments, and the server's own write deadline, which is
// for requests that are answered at once, does not end it.
func TestHeartbeat(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		l := s.listen(s.path(c))
		const silence = 20 * time.Minute
		replied := make(chan struct{})
		go func() {
			defer close(replied)
			<-time.After(silence)
			s.reply(c, record.Reply{Body: []byte("late")})
		}()
		defer func() { <-replied }()
		if e := l.next(); e == nil || e.data != "late" {
			t.Fatalf("%v", e)
		}
		beats := l.parser.comments - 1
		if least, most := int(silence/defaultHeartbeat), int(silence/(defaultHeartbeat*9/10)); beats < least || beats > most {
			t.Errorf("%d comments in %s, want %d to %d", beats, silence, least, most)
		}
	})
}

// A client that has seen the end asks while the broker is away: nobody can tell
// it 204, and the stream is open at once all but that.
func TestEndWithoutBroker(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		end := hub.Cursor{Incarnation: c.ReplyIncarnation, Offset: c.Floor, Mark: hub.MarkEnd}
		s.cut()
		begun := time.Now()
		s.listen(s.path(c), "Last-Event-ID", end.String())
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the first bytes took %s", took)
		}
	})
}

// A cursor that fits nothing is told, and the stream comes from its start.
func TestUselessCursor(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		other, c := s.accept(), s.accept()
		foreign := s.reply(other, record.Reply{Body: []byte("not yours")})
		own := s.reply(c, record.Reply{Body: []byte("yours")})
		future := own
		future.Offset += 1000
		marked := foreign
		marked.Mark = hub.MarkEnd
		for name, cursor := range map[string]string{
			"no cursor":              "42",
			"4,000 characters":       strings.Repeat("0", 4000),
			"of another stream":      foreign.String(),
			"end of another stream":  marked.String(),
			"from the future":        future.String(),
			"expired and is not":     hub.Cursor{Incarnation: own.Incarnation, Offset: own.Offset, Mark: hub.MarkExpired}.String(),
			"of another incarnation": hub.Cursor{Incarnation: own.Incarnation + 1, Offset: own.Offset}.String(),
		} {
			l := s.listen(s.path(c), "Last-Event-ID", cursor)
			if e := l.next(); e == nil || e.name != "gap" || !strings.Contains(e.data, `"reason"`) || e.id != "" {
				t.Errorf("%s: %+v, want a gap", name, e)
			}
			l.want("message", own.String(), "yours")
			if e := l.next(); e == nil || e.name != "end" {
				t.Errorf("%s: %+v, want the end", name, e)
			}
			l.ends()
		}
	})
}

func TestStreamExpires(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		l := s.listen(s.path(c))
		e := l.next()
		if e == nil || e.name != "end" || !strings.HasSuffix(e.id, "-expired") || e.data != `{"status":"expired"}` {
			t.Fatalf("%+v", e)
		}
		l.ends()
		if took := time.Since(c.Issued); took < s.app.settings.ttl || took > s.app.settings.ttl+time.Minute {
			t.Errorf("expired after %s", took)
		}
		s.get(s.path(c), "Accept", "text/event-stream", "Last-Event-ID", e.id).want(t, http.StatusNoContent)
		s.get(s.path(c)+"/result").want(t, http.StatusGone, "No answer came in time")
		s.reply(c, record.Reply{Body: []byte("too late")})
		s.get(s.path(c)+"/result").want(t, http.StatusGone, "No answer came in time")
		s.get(s.path(c), "Accept", "application/json").want(t, http.StatusOK, `"status":"expired"`, `"replies":[]`)
	}, func(a *App) { a.Token = &Token{TTL: caddy.Duration(10 * time.Minute)} })
}

// A client that does not read is given up, and its stream goes with it: of
// events as well as of one large answer, since the server's own deadline for
// writing is off in both.
func TestClientThatNeverReads(t *testing.T) {
	for name, test := range map[string]struct{ path, header, value string }{
		"events": {"", "Accept", "text/event-stream"},
		"json":   {"", "Prefer", "wait=10"},
		"result": {"/result", "Prefer", "wait=10"},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				c := s.accept()
				conn, err := s.network.DialContext(t.Context(), "tcp", siteHost)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := s.request(http.MethodGet, s.path(c)+test.path, test.header, test.value).Write(conn); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if streams.count() != 1 {
					t.Fatalf("%d streams", streams.count())
				}
				s.reply(c, record.Reply{Body: bytes.Repeat([]byte("x"), 512<<10)})
				begun := time.Now()
				streams.await(time.Hour)
				if took := time.Since(begun); took > defaultWriteTimeout+time.Second {
					t.Errorf("held for %s", took)
				}
			})
		})
	}
}

// When the process ends, clients are asked to come back, at different times.
func TestEventsOnExit(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		l := s.listen(s.path(s.accept()))
		synctest.Wait()
		s.leave()
		l.parser.retry = 0
		l.ends()
		if l.parser.retry < comeBack {
			t.Errorf("retry %s", l.parser.retry)
		}
	})
}

// Streams that end together do not come back together: when they begin, when they are
// turned away and when the process ends, each is told another time.
func TestRetryHasJitter(t *testing.T) {
	const open = 20
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		begun, turnedAway, exiting := make([]time.Duration, open), make([]time.Duration, open), make([]time.Duration, open)
		listeners := make([]*listener, open)
		for i := range listeners {
			l := s.listen(path)
			for range 2 {
				line, err := l.lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				l.parser.line(strings.TrimSuffix(line, "\n"))
			}
			listeners[i], begun[i] = l, l.parser.retry
		}
		for i := range turnedAway {
			l := s.listen(path)
			l.ends()
			turnedAway[i] = l.parser.retry
		}
		s.leave()
		for i, l := range listeners {
			l.parser.retry = 0
			l.ends()
			exiting[i] = l.parser.retry
		}
		for what, told := range map[string][]time.Duration{"begins": begun, "is turned away": turnedAway, "ends with the process": exiting} {
			least := comeBack
			if what == "is turned away" {
				least = comeBackLater
			}
			different := make(map[time.Duration]bool)
			for _, retry := range told {
				different[retry] = true
				if retry < least || retry > least+comeBackSpread {
					t.Errorf("a stream that %s is told to come back after %s", what, retry)
				}
			}
			if len(different) < open/2 { // of 3,000 milliseconds
				t.Errorf("%d streams that each %s are told %d times to come back: %v", open, what, len(different), told)
			}
		}
	}, func(a *App) { a.Streams = &Streams{MaxOpenPerClient: open} })
}
