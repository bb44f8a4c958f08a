package osmosis

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// clientAddress is where all requests come from.
const clientAddress = "192.0.2.7"

// storefront is a gateway with a route in front, whose other paths are stream URLs.
type storefront struct {
	*gateway
	route *Handler

	mu   sync.Mutex
	repl *caddy.Replacer // of the last request
}

// queueing runs a test in a bubble, with a gateway that queues what comes as
// the route says.
func queueing(t *testing.T, route *Handler, test func(t *testing.T, s *storefront), configure ...func(*App)) {
	t.Helper()
	virtually(t, func(t *testing.T, g *gateway) {
		if route.Topic == "" {
			route.Topic = testTopic
		}
		s := &storefront{gateway: g, route: route}
		route.settle(g.app)
		g.app.addRoute(route)
		g.server.Handler = http.HandlerFunc(s.serve)
		// The server lingers for half a second on connections that it closes itself.
		t.Cleanup(func() { <-time.After(time.Second) })
		test(t, s)
	}, configure...)
}

// serve does what Caddy does around the handlers of a site. Some headers stand
// for what other handlers would find out.
func (s *storefront) serve(w http.ResponseWriter, r *http.Request) {
	w = wrapped{w}
	repl := caddy.NewReplacer()
	r.RemoteAddr = clientAddress + ":4711"
	r = caddyhttp.PrepareRequest(r, repl, w, s.caddy)
	repl.Set("test.user", r.Header.Get("User"))
	if r.Header.Get("Trusted") != "" {
		caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, true)
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, r.Header.Get("X-Forwarded-For"))
	}
	err := s.streams.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return s.route.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(notOurs)
			return nil
		}))
	}))
	if err != nil {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repl = repl
}

// placeholder gives what a placeholder expands to after the last request.
func (s *storefront) placeholder(name string) string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repl.ReplaceAll("{"+name+"}", "")
}

// post makes a POST request with headers given as name and value in turn.
func (s *storefront) post(body string, headers ...string) *http.Request {
	s.t.Helper()
	r := s.request(http.MethodPost, "/orders?rush=1", headers...)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return r
}

// send sends a request and reads what comes, to its end.
func (s *storefront) send(r *http.Request) answer {
	s.t.Helper()
	response, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatalf("read %s %s: %v", r.Method, r.URL, err)
	}
	return answer{response, string(body)}
}

// queued is what a 202 says.
func (a answer) queued(t *testing.T) accepted {
	t.Helper()
	a.want(t, http.StatusAccepted)
	var q accepted
	if err := json.Unmarshal([]byte(a.body), &q); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return q
}

// stored is a record as it lies on a topic.
type stored struct {
	broker.Record
	partition int32
}

// stored gives all records of a topic.
func (s *gateway) stored(name string) []stored {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	client := s.app.inside.client
	topic, err := client.Topic(ctx, name)
	if err != nil {
		s.t.Fatal(err)
	}
	var all []stored
	for p, leader := range topic.Leaders {
		from := broker.FetchFrom{Topic: name, ID: topic.ID, Partition: int32(p)}
		for more := true; more; {
			got, err := client.Fetch(ctx, broker.FetchRequest{Leader: leader, From: []broker.FetchFrom{from}, MaxBytes: 8 << 20})
			if err != nil || got[0].Err != nil {
				s.t.Fatal(err, got)
			}
			for _, r := range got[0].Records {
				all = append(all, stored{r, int32(p)})
			}
			from.Offset, more = got[0].Next, got[0].Next < got[0].HighWatermark
		}
	}
	return all
}

// only gives the one record that lies on the topic of requests.
func (s *gateway) only() (stored, record.Request) {
	s.t.Helper()
	all := s.stored(testTopic)
	if len(all) != 1 {
		s.t.Fatalf("%d records, want 1: %v", len(all), all)
	}
	r, err := record.ParseRequest(all[0].Record.Record)
	if err != nil {
		s.t.Fatal(err)
	}
	return all[0], r
}

// nothing fails if anything was queued.
func (s *gateway) nothing() {
	s.t.Helper()
	if all := s.stored(testTopic); len(all) != 0 {
		s.t.Errorf("queued: %v", all)
	}
}

// work answers the requests of a topic like a worker of its own would, until the
// test ends.
func (s *gateway) work(answer func(record.Request) []record.Reply) {
	ctx, cancel := context.WithCancel(s.t.Context())
	client, producer := s.app.inside.client, s.app.inside.producer
	topic, err := client.Topic(ctx, testTopic)
	if err != nil {
		s.t.Fatal(err)
	}
	done := make(chan struct{})
	s.t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		from := broker.FetchFrom{Topic: testTopic, ID: topic.ID}
		for ctx.Err() == nil {
			got, err := client.Fetch(ctx, broker.FetchRequest{Leader: topic.Leaders[0], From: []broker.FetchFrom{from}, MaxBytes: 8 << 20, MaxWait: time.Second})
			if err != nil {
				continue
			}
			from.Offset = got[0].Next
			for _, r := range got[0].Records {
				request, err := record.ParseRequest(r.Record)
				if err != nil {
					s.t.Error(err)
					continue
				}
				for _, reply := range answer(request) {
					if _, err := producer.Produce(ctx, ingress.Request{Topic: request.ReplyTopic, Record: reply.Record()}); err != nil && ctx.Err() == nil {
						s.t.Error(err)
					}
				}
			}
		}
	}()
}

func TestAccepted(t *testing.T) {
	queueing(t, &Handler{Key: "{http.request.header.X-Customer}"}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("two coffees"))
		q := a.queued(t)
		location := a.Header.Get("Location")
		if !strings.HasPrefix(location, defaultStreams+"/") || q.Stream != "http://"+siteHost+location || q.Status != "queued" || q.ID == "" {
			t.Errorf("Location %q, body %+v", location, q)
		}
		for name, want := range map[string]string{
			"Retry-After": "1", "Cache-Control": "no-store", "Content-Type": "application/json", "Preference-Applied": "", "Vary": "",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for name, want := range map[string]string{
			"stream_id": q.ID, "topic": testTopic, "partition": "0", "offset": "0", "stream_url": q.Stream,
		} {
			if got := s.placeholder("http.osmosis." + name); got != want {
				t.Errorf("placeholder %s: %q, want %q", name, got, want)
			}
		}
		if d := s.get(location).document(t); d.ID != q.ID || d.Status != "queued" {
			t.Errorf("%+v", d)
		}
		again := s.send(s.post("two coffees")).queued(t)
		if again.ID == q.ID || again.Stream == q.Stream {
			t.Errorf("two requests have one stream: %+v", q)
		}
		if offset := s.placeholder("http.osmosis.offset"); offset != "1" {
			t.Errorf("offset %q", offset)
		}
	})
}

// Whatever a trusted proxy says that the host is, what the client gets is JSON.
func TestAcceptedIsJSON(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x", "Trusted", "yes", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "odd\"\\\xff.example"))
		q := a.queued(t)
		if !strings.HasPrefix(q.Stream, `https://odd"\`) || !strings.HasSuffix(q.Stream, a.Header.Get("Location")) {
			t.Errorf("%q", q.Stream)
		}
	})
}

func TestMethods(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			s.do(method, "/orders").want(t, 202)
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "BREW", "post"} {
			a := s.do(method, "/orders").want(t, notOurs)
			if a.Header.Get("Cache-Control") != "" {
				t.Errorf("%s: %v", method, a.Header)
			}
		}
		// Only GET upgrades to WebSocket, whatever another method says.
		s.do("GET", "/orders", "Connection", "Upgrade", "Upgrade", "websocket").want(t, notOurs)
		s.do("GET", "/orders", "Connection", "Upgrade", "Upgrade", "h2c").want(t, notOurs)
		s.do("POST", "/orders", "Connection", "Upgrade", "Upgrade", "websocket").want(t, 202)
		var methods []string
		for _, r := range s.stored(testTopic) {
			method, _ := r.Header(record.HeaderMethod)
			methods = append(methods, string(method))
		}
		if got := strings.Join(methods, " "); got != "POST PUT PATCH DELETE POST" {
			t.Errorf("queued: %s", got)
		}
	})
	queueing(t, &Handler{Methods: []string{"Search", "Report"}}, func(t *testing.T, s *storefront) {
		s.do("SEARCH", "/orders").want(t, 202)
		s.do("REPORT", "/orders").want(t, 202)
		s.do("POST", "/orders").want(t, notOurs)
	})
}

func TestBind(t *testing.T) {
	queueing(t, &Handler{Bind: "{test.user}"}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x")).want(t, 401, `"status":401`)
		if a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Location") != "" || a.Header.Get("WWW-Authenticate") != challenge {
			t.Errorf("%v", a.Header)
		}
		s.nothing()
		location := s.send(s.post("x", "User", "ada")).want(t, 202).Header.Get("Location")
		s.get(location).want(t, 401)
		s.get(location, "User", "eve").want(t, 403)
		s.get(location, "User", "ada").want(t, 200)
	})
}

func TestRouteCORS(t *testing.T) {
	const app, stranger = "https://app.example", "https://evil.example"
	queueing(t, &Handler{CORS: []string{app}, Bind: "{test.user}"}, func(t *testing.T, s *storefront) {
		// A preflight comes without credentials, and so before `bind`.
		a := s.do("OPTIONS", "/orders", "Origin", app, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "prefer").want(t, 204)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true",
			"Access-Control-Allow-Methods": "POST, PUT, PATCH, DELETE", "Access-Control-Allow-Headers": "prefer",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		// What is not asked of this route is the site's own affair.
		s.do("OPTIONS", "/orders", "Origin", app, "Access-Control-Request-Method", "GET").want(t, notOurs)
		s.do("OPTIONS", "/orders", "Origin", stranger, "Access-Control-Request-Method", "POST").want(t, notOurs)
		s.nothing()

		for user, status := range map[string]int{"ada": 202, "": 401} {
			a = s.send(s.post("x", "Origin", app, "User", user)).want(t, status)
			if a.Header.Get("Access-Control-Allow-Origin") != app || !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "Location") || a.Header.Get("Vary") != "Origin" {
				t.Errorf("%d: %v", status, a.Header)
			}
		}
		a = s.send(s.post("x", "Origin", stranger, "User", "ada")).want(t, 202)
		if a.Header.Get("Access-Control-Allow-Origin") != "" || a.Header.Get("Vary") != "Origin" {
			t.Errorf("%v", a.Header)
		}
		a = s.get(a.Header.Get("Location"), "Origin", app, "User", "ada").want(t, 200)
		if a.Header.Get("Access-Control-Allow-Origin") != app {
			t.Errorf("%v", a.Header)
		}
	})
	queueing(t, &Handler{CORS: []string{"*"}}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x", "Origin", app)).want(t, 202)
		if a.Header.Get("Access-Control-Allow-Origin") != "*" || a.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%v", a.Header)
		}
	})
}

// A person who sends a form is led to the stream, and a program is not.
func TestFormPost(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		for _, form := range []string{"application/x-www-form-urlencoded", "multipart/form-data; boundary=b"} {
			a := s.send(s.post("a=b", "Content-Type", form, "Accept", "text/html,*/*;q=0.8")).want(t, 303)
			if a.body != "" || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%q %v", a.body, a.Header)
			}
			s.get(a.Header.Get("Location"), "Accept", "text/html").want(t, 200, "<!doctype html>")
			s.send(s.post("a=b", "Content-Type", form, "Accept", "*/*")).want(t, 202)
		}
		s.send(s.post("{}", "Content-Type", "application/json", "Accept", "text/html")).want(t, 202)
	})
}
