package osmosis

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/gzip"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// parks opens a stream and lets it be quiet until it leaves its server.
func (s *gateway) parks(c hub.Claims, headers ...string) *listener {
	s.t.Helper()
	l := s.listen(s.path(c), headers...)
	pass(parkAfter + time.Second)
	if n := s.serving.Load(); n != 0 {
		s.t.Fatalf("%d handlers still serve", n)
	}
	if streams.count() == 0 {
		s.t.Fatal("the stream is not open any more")
	}
	return l
}

func TestParked(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, s *gateway, c hub.Claims, l *listener){
		"goes on as it was": func(t *testing.T, s *gateway, c hub.Claims, l *listener) {
			s.reply(c, record.Reply{State: record.StateDelivering, Body: []byte(`{"attempt":1}`)})
			l.want("status", "", `{"status":"delivering","attempt":1}`)
			large := strings.Repeat("x", 300<<10)
			at := s.reply(c, record.Reply{Body: []byte(large), More: true})
			l.want("message", at.String(), large)
			pass(time.Second)
			at = s.reply(c, record.Reply{Body: []byte("last")})
			l.want("message", at.String(), "last")
			if e := l.next(); e == nil || e.name != "end" {
				t.Fatalf("%+v, want the end", e)
			}
			l.ends() // which it would not, were the last chunk not there
			synctest.Wait()
			if n := streams.count(); n != 0 {
				t.Errorf("%d streams are open", n)
			}
		},
		"gives up a client that does not read": func(t *testing.T, s *gateway, c hub.Claims, _ *listener) {
			s.reply(c, record.Reply{Body: bytes.Repeat([]byte("x"), 512<<10), More: true})
			begun := time.Now()
			streams.await(time.Hour)
			if took := time.Since(begun); took > defaultWriteTimeout+time.Second {
				t.Errorf("held for %s", took)
			}
		},
		"ends when its client leaves": func(t *testing.T, _ *gateway, _ hub.Claims, l *listener) {
			begun := time.Now()
			l.response.Body.Close()
			streams.await(time.Hour)
			if took := time.Since(begun); took > 0 {
				t.Errorf("held for %s", took)
			}
		},
		"says goodbye": func(t *testing.T, s *gateway, _ hub.Claims, l *listener) {
			l.parser.retry = 0
			s.leave()
			l.ends()
			if l.parser.retry < comeBack {
				t.Errorf("retry %s", l.parser.retry)
			}
		},
		"survives a panic": func(_ *testing.T, s *gateway, _ hub.Claims, l *listener) {
			p := &parked{conn: broken{}, logger: s.app.logger, release: func() {}, sub: (*hub.Subscription)(nil)}
			p.serve()
			l.response.Body.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				c := s.accept()
				test(t, s, c, s.parks(c))
			})
		})
	}
}

type broken struct{ net.Conn }

func (broken) Close() error { return nil }

// A client that sends the next request before this answer's end gets the end.
func TestParkedClientThatSends(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		conn, err := s.network.DialContext(t.Context(), "tcp", siteHost)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := s.request(http.MethodGet, s.path(c), "Accept", "text/event-stream").Write(conn); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		read := make(chan error, 1)
		go func() {
			_, err := got.ReadFrom(conn)
			read <- err
		}()
		pass(parkAfter + time.Second)
		if _, err := conn.Write([]byte("G")); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := <-read; err != nil || !strings.HasSuffix(got.String(), "\r\n0\r\n\r\n") || time.Since(begun) > 0 {
			t.Errorf("after %s %v %q", time.Since(begun), err, got.String())
		}
	})
}

// A client sends its next request when it has read the end, and on the same
// connection. What happens to the stream meanwhile is none of that one's business.
func TestParkedConnectionIsKept(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		for round := range 3 {
			c := s.accept()
			l := s.parks(c)
			s.reply(c, record.Reply{Body: []byte("last")})
			for l.next() != nil { // up to the end
			}
			pass(time.Duration(round) * 10 * time.Second)
			var conn httptrace.GotConnInfo
			r := s.request(http.MethodGet, s.path(c)+"/result")
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i }}))
			response, err := s.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || string(body) != "last" || !conn.Reused {
				t.Errorf("round %d: %q %v, on the same connection %t", round, body, err, conn.Reused)
			}
		}
		synctest.Wait()
		if n := streams.count(); n != 0 {
			t.Errorf("%d streams are open", n)
		}
	})
}

// While the process is about to end, a connection whose stream has ended is the
// server's again only with the next request: one without would hold it up.
func TestParkedConnectionAtTheEnd(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		ending.Store(true)
		defer ending.Store(false)
		c := s.accept()
		conn, err := s.network.DialContext(t.Context(), "tcp", siteHost)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		read := bufio.NewReader(conn)
		answer := func(path string, headers ...string) string {
			r := s.request(http.MethodGet, path, headers...)
			if err := r.Write(conn); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(read, r)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			return string(body)
		}
		last := time.AfterFunc(parkAfter+time.Second, func() { s.reply(c, record.Reply{Body: []byte("last")}) })
		defer last.Stop()
		if got := answer(s.path(c), "Accept", "text/event-stream"); !strings.Contains(got, "event: end") {
			t.Errorf("the stream told %q", got)
		}
		pass(10 * time.Second)
		if got := answer(s.path(c) + "/result"); got != "last" {
			t.Errorf("the next answer on the connection is %q", got)
		}

		c = s.accept()
		l := s.parks(c)
		s.reply(c, record.Reply{Body: []byte("last")})
		for l.next() != nil { // up to the end
		}
		pass(time.Second)
		begun := time.Now()
		s.leave()
		if err := s.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the server took %s to end", took)
		}
	})
}

// A client that wants no other answer on the connection, or was told that there
// is none, may read up to the end of the connection.
func TestParkedConnectionIsClosed(t *testing.T) {
	closes := &headers.Handler{Response: &headers.RespHeaderOps{HeaderOps: &headers.HeaderOps{Set: http.Header{"Connection": {"close"}}}}}
	for name, test := range map[string]struct {
		around caddyhttp.MiddlewareHandler
		send   []string // headers
	}{
		"the client's wish":  {send: []string{"Connection", "close"}},
		"the server's words": {around: closes},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				s.around = test.around
				c := s.accept()
				conn, err := s.network.DialContext(t.Context(), "tcp", siteHost)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := s.request(http.MethodGet, s.path(c), append(test.send, "Accept", "text/event-stream")...).Write(conn); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(parkAfter+time.Second, func() { s.reply(c, record.Reply{Body: []byte("last")}) })
				begun := time.Now()
				got, err := io.ReadAll(conn)
				if took := time.Since(begun); err != nil || !strings.HasSuffix(string(got), "\r\n0\r\n\r\n") || took > parkAfter+2*time.Second {
					t.Errorf("after %s %v %q", took, err, got)
				}
			})
		})
	}
}

// A wish that comes when the connection is the server's again leaves it alone.
func TestParkedIsWokenLate(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	p := &parked{conn: ours, over: true}
	p.wake()
	go func() { _, _ = theirs.Write([]byte("G")) }()
	if _, err := ours.Read(p.read[:]); err != nil {
		t.Error(err)
	}
}

// What other handlers do to a response is done, and a stream that one of them
// changes the bytes of stays where it is.
func TestParkedBehindOthers(t *testing.T) {
	for name, test := range map[string]struct {
		wrap   func(http.ResponseWriter) http.ResponseWriter
		around caddyhttp.MiddlewareHandler
		send   []string      // headers
		write  time.Duration // the server's timeout
		stays  bool
	}{
		"an access log": {wrap: func(w http.ResponseWriter) http.ResponseWriter { return caddyhttp.NewResponseRecorder(w, nil, nil) }},
		"a wrapper that nobody knows": {
			wrap:  func(w http.ResponseWriter) http.ResponseWriter { return wrapped{w} },
			stays: true,
		},
		"a buffer": {
			wrap: func(w http.ResponseWriter) http.ResponseWriter {
				return flushing{caddyhttp.NewResponseRecorder(w, new(bytes.Buffer), func(int, http.Header) bool { return true }), w}
			},
			stays: true,
		},
		"header":                     {around: &headers.Handler{Response: &headers.RespHeaderOps{Deferred: true, HeaderOps: &headers.HeaderOps{Set: http.Header{"X-Around": {"yes"}}}}}},
		"encode, accepted":           {around: &encode.Encode{EncodingsRaw: caddy.ModuleMap{"gzip": json.RawMessage("{}")}}, send: []string{"Accept-Encoding", "gzip"}, stays: true},
		"a flush behind the timeout": {around: flushed{}, write: parkAfter, stays: true},
		"encode, not":                {around: &encode.Encode{EncodingsRaw: caddy.ModuleMap{"gzip": json.RawMessage("{}")}}, send: []string{"Accept-Encoding", "identity"}},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				if p, ok := test.around.(caddy.Provisioner); ok {
					ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
					defer cancel()
					if err := p.Provision(ctx); err != nil {
						t.Fatal(err)
					}
				}
				s.wrap, s.around = test.wrap, test.around
				if test.write > 0 {
					s.server.WriteTimeout = test.write
				}
				c := s.accept()
				response := make(chan answer, 1)
				go func() { response <- s.get(s.path(c), append(test.send, "Accept", "text/event-stream")...) }()
				pass(parkAfter + time.Second)
				if n := s.serving.Load(); (n == 1) != test.stays {
					t.Errorf("%d handlers serve", n)
				}
				s.reply(c, record.Reply{Body: []byte("done")})
				got := <-response
				if !test.stays && !strings.Contains(got.body, "data: done") {
					t.Errorf("%q", got.body)
				}
				if name == "header" && got.Header.Get("X-Around") != "yes" {
					t.Errorf("%v", got.Header)
				}
			})
		})
	}
}

// flushing gives what a buffer holds when it is closed.
type flushing struct {
	caddyhttp.ResponseRecorder
	w http.ResponseWriter
}

func (f flushing) Unwrap() http.ResponseWriter { return f.w }

// flushed flushes the response when the handlers have returned, as Caddy does
// for its access log where they took as long as the server may write.
type flushed struct{}

func (flushed) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	begun, server := time.Now(), r.Context().Value(http.ServerContextKey).(*http.Server)
	err := next.ServeHTTP(w, r)
	if time.Since(begun) >= server.WriteTimeout {
		_ = http.NewResponseController(w).Flush()
	}
	return err
}

func TestPassedOn(t *testing.T) {
	for name, change := range map[string]func(r *http.Request, h http.Header){
		"HTTP/1.0":       func(r *http.Request, _ http.Header) { r.ProtoMinor = 0 },
		"HTTP/2":         func(r *http.Request, _ http.Header) { r.ProtoMajor, r.ProtoMinor = 2, 0 },
		"a body":         func(r *http.Request, _ http.Header) { r.ContentLength = -1 },
		"an encoding":    func(_ *http.Request, h http.Header) { h.Set("Content-Encoding", "br") },
		"a length":       func(_ *http.Request, h http.Header) { h.Set("Content-Length", "1000") },
		"no chunks":      func(_ *http.Request, h http.Header) { h.Set("Transfer-Encoding", "identity") },
		"trailers":       func(_ *http.Request, h http.Header) { h.Set("Trailer", "Expires") },
		"nothing at all": nil,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if change != nil {
				change(r, w.Header())
			}
			if _, ok := passedOn(w, r); ok != (change == nil) {
				t.Errorf("with %s it may leave: %v", name, ok)
			}
		}))
		response, err := http.Get(server.URL)
		if err == nil {
			response.Body.Close()
		}
		server.Close()
	}
}

// A server that is being shut down, as on a reload, takes no connection back.
func TestHandBackRefused(t *testing.T) {
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	down := new(http.Server)
	if err := down.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, server := range map[string]*http.Server{"one that is gone": nil, "one that is shut down": down} {
		if handBack(server, conn) {
			t.Errorf("%s took the connection", name)
		}
	}
}
