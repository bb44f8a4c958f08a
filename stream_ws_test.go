package osmosis

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// dialSocket opens a WebSocket, or gives the response that refused it.
func (s *gateway) dialSocket(path string, headers ...string) (*websocket.Conn, *http.Response, error) {
	r := s.request(http.MethodGet, path, headers...)
	return websocket.Dial(s.t.Context(), r.URL.String(), &websocket.DialOptions{
		HTTPClient: s.client, HTTPHeader: r.Header, Host: r.Host, Subprotocols: []string{cloudEventsProtocol},
	})
}

func (s *gateway) socket(path string, headers ...string) *websocket.Conn {
	s.t.Helper()
	conn, _, err := s.dialSocket(path, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// frame reads the next event.
func frame(t *testing.T, conn *websocket.Conn) map[string]any {
	t.Helper()
	kind, text, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(text, &event); err != nil || kind != websocket.MessageText {
		t.Fatalf("%v in %s", err, text)
	}
	return event
}

// closes reads to the end and gives the close code.
func closes(t *testing.T, conn *websocket.Conn) websocket.StatusCode {
	t.Helper()
	_, text, err := conn.Read(t.Context())
	if err == nil {
		t.Fatalf("frame %s, want the end", text)
	}
	return websocket.CloseStatus(err)
}

func TestStreamAsWebSocket(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		conn := s.socket(s.path(c))
		if conn.Subprotocol() != cloudEventsProtocol {
			t.Errorf("subprotocol %q", conn.Subprotocol())
		}
		s.reply(c, record.Reply{State: record.StateDelivering, Body: []byte(`{"attempt":1}`)})
		e := frame(t, conn)
		if e["type"] != "osmosis.status" || e["cursor"] != nil || e["data"].(map[string]any)["status"] != "delivering" {
			t.Errorf("%v", e)
		}
		at := s.reply(c, record.Reply{Body: []byte("hello")})
		e = frame(t, conn)
		if e["type"] != "osmosis.reply" || e["id"] != at.String() || e["cursor"] != at.String() || e["data"] != "hello" ||
			e["source"] != "/osmosis/"+testTopic || e["subject"] != c.ID {
			t.Errorf("%v", e)
		}
		e = frame(t, conn)
		if e["type"] != "osmosis.end" || e["cursor"] != at.String()+"-end" || e["data"].(map[string]any)["status"] != "replied" {
			t.Errorf("%v", e)
		}
		if code := closes(t, conn); code != websocket.StatusNormalClosure {
			t.Errorf("closed with %d", code)
		}

		// From the last reply comes the end, from the end nothing, from nonsense a gap.
		if e = frame(t, s.socket(s.path(c)+"?last-event-id="+at.String())); e["type"] != "osmosis.end" {
			t.Errorf("%v", e)
		}
		if code := closes(t, s.socket(s.path(c)+"?last-event-id="+at.String()+"-end")); code != websocket.StatusNormalClosure {
			t.Errorf("closed with %d", code)
		}
		conn = s.socket(s.path(c) + "?last-event-id=nonsense")
		if e = frame(t, conn); e["type"] != "osmosis.gap" || e["data"].(map[string]any)["reason"] != "cursor" {
			t.Errorf("%v", e)
		}
		if e = frame(t, conn); e["type"] != "osmosis.status" {
			t.Errorf("%v, want the stream from its start", e)
		}
	})
}

func TestWebSocketOrigin(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		s.app.addRoute(&Handler{Topic: testTopic, CORS: []string{"https://app.example"}})
		path := s.path(s.accept())
		for origin, want := range map[string]int{
			"http://" + siteHost: 101, "https://app.example": 101,
			"https://evil.example": 403, "null": 403, "https://" + siteHost: 403, "http://localhost": 403,
		} {
			conn, response, err := s.dialSocket(path, "Origin", origin)
			if err == nil {
				_ = conn.Close(websocket.StatusNormalClosure, "")
			}
			if response == nil || response.StatusCode != want {
				t.Errorf("%s: %v %v, want %d", origin, response, err, want)
			}
		}
	})
}

// Pages of any origin may follow a stream that is anyone's, and not one that has
// an owner, whose cookies a browser would send along.
func TestWebSocketOfAnyOrigin(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		s.app.addRoute(&Handler{Topic: testTopic, CORS: []string{"*"}})
		owned := s.accept(func(c *hub.Claims) { c.Bind, c.BindHash = "{test.user}", s.app.keys.BindHash(c.ID, "ada") })
		for path, want := range map[string]int{s.path(s.accept()): 101, s.path(owned): 403} {
			conn, response, err := s.dialSocket(path, "Origin", "https://evil.example", "User", "ada")
			if err == nil {
				_ = conn.Close(websocket.StatusNormalClosure, "")
			}
			if response == nil || response.StatusCode != want {
				t.Errorf("%v %v, want %d", response, err, want)
			}
		}
	})
}

// A client gets a ping where it would get nothing, and one that does not answer is given up.
func TestPing(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		pinged := make(chan struct{}, 100)
		r := s.request(http.MethodGet, s.path(c))
		conn, _, err := websocket.Dial(t.Context(), r.URL.String(), &websocket.DialOptions{
			HTTPClient:     s.client,
			OnPingReceived: func(context.Context, []byte) bool { pinged <- struct{}{}; return len(pinged) < 3 },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.CloseNow() }()
		begun := time.Now()
		if _, _, err := conn.Read(t.Context()); err == nil {
			t.Fatal("a frame")
		}
		if took := time.Since(begun); len(pinged) != 3 || took < 2*defaultHeartbeat || took > 3*defaultHeartbeat+defaultWriteTimeout+time.Second {
			t.Errorf("%d pings, closed after %s", len(pinged), took)
		}
	})
}

func TestWebSocketCloses(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		talker := s.socket(path)
		if err := talker.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if code := closes(t, talker); code != websocket.StatusPolicyViolation {
			t.Errorf("a client that sends gets %d", code)
		}
		shouter := s.socket(path)
		_ = shouter.Write(t.Context(), websocket.MessageText, []byte(strings.Repeat("a", maxFrame+1)))
		if _, _, err := shouter.Read(t.Context()); err == nil {
			t.Error("a client may send frames of any size")
		}
		streams.await(time.Minute)

		conn := s.socket(path)
		if code := closes(t, s.socket(path)); code != websocket.StatusTryAgainLater {
			t.Errorf("beyond the limit: %d", code)
		}
		synctest.Wait()
		s.leave()
		if code := closes(t, conn); code != websocket.StatusServiceRestart {
			t.Errorf("on exit: %d", code)
		}
	}, func(a *App) { a.Streams = &Streams{MaxOpen: 1} })
}

// A handshake over HTTP/2 or 3 is answered at once, so that the client turns to events.
func TestExtendedConnect(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"HTTP/2": func(r *http.Request) { r.ProtoMajor = 2; r.Header[":protocol"] = []string{"websocket"} },
		"HTTP/3": func(r *http.Request) { r.ProtoMajor = 3; r.Proto = "websocket" },
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				r := s.request(http.MethodConnect, s.path(s.accept()))
				change(r)
				w := httptest.NewRecorder()
				s.serve(w, r)
				if w.Code != http.StatusNotImplemented {
					t.Errorf("%d", w.Code)
				}
			})
		})
	}
}

// The end of the hub under a stream is told like that of the process.
func TestHubCloses(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		sub := s.app.inside.hub.Follow(streamOf(s.accept()), nil)
		sub.Close()
		nothing := func(hub.Event) error { return nil }
		if err := pump(t.Context(), sub, time.Minute, nothing, func() error { return nil }); !errors.Is(err, hub.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
