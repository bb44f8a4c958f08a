package osmosis

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// gateway is one over a broker in memory, served over a network in memory:
// all that a request goes through but Caddy itself. It has to be made inside a
// synctest bubble, so that time is virtual.
type gateway struct {
	t       *testing.T
	network kfake.VirtualNetwork
	cluster *kfake.Cluster
	app     *App
	streams *StreamsHandler
	// caddy is the server as handlers see it.
	caddy *caddyhttp.Server
	// user is what {test.user} expands to, by the header User.
	client *http.Client
	server *http.Server

	leave func() // says that the process ends

	// wrap and around are what stands between server and handler, nil for
	// Caddy's plain wrapper and nothing.
	wrap    func(http.ResponseWriter) http.ResponseWriter
	around  caddyhttp.MiddlewareHandler
	serving atomic.Int64 // handlers at work

	mu   sync.Mutex
	down bool
	live map[net.Conn]struct{}
}

// virtually runs a test in a bubble with a gateway.
func virtually(t *testing.T, test func(t *testing.T, s *gateway), configure ...func(*App)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newGateway(t, configure...)) })
}

const (
	siteHost  = "localhost:8080"
	testTopic = "orders"
)

func newGateway(t *testing.T, configure ...func(*App)) *gateway {
	t.Helper()
	s := &gateway{t: t, caddy: new(caddyhttp.Server), live: make(map[net.Conn]struct{})}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(s.network.Listen),
		kfake.SeedTopics(1, defaultReplies, testTopic))
	if err != nil {
		t.Fatal(err)
	}
	s.cluster = cluster
	// A context of this bubble takes the place of the process'.
	before := exitContext
	ctx, leave := context.WithCancel(context.Background())
	exitContext, s.leave = ctx, leave //nolint:fatcontext // it takes a place, and is nested in nothing
	app := &App{logger: zap.NewNop(), started: make(chan struct{})}
	for _, c := range configure {
		c(app)
	}
	app.settings = app.effective()
	key := t.Name()
	app.plan = plan{
		brokerKey: key, insideKey: key, logger: app.logger,
		broker: broker.Config{Addresses: cluster.ListenAddrs(), Dial: s.dial},
		hub:    hub.Config{Topic: defaultReplies, Logger: app.logger},
	}
	if app.inside, err = app.plan.acquire(); err != nil {
		t.Fatal(err)
	}
	app.shared = newShare(app.inside, key)
	if app.keys, err = hub.NewKeyring("a secret of the tests"); err != nil {
		t.Fatal(err)
	}
	close(app.started)
	s.app, s.streams = app, &StreamsHandler{app: app}

	listener, err := s.network.Listen("tcp", siteHost)
	if err != nil {
		t.Fatal(err)
	}
	// Deadlines such as read_timeout and write_timeout set; no stream may mind them.
	const hurry = 30 * time.Second
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ReadTimeout: hurry, WriteTimeout: hurry}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.server.Serve(listener)
	}()
	transport := &http.Transport{DialContext: s.network.DialContext}
	s.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.server.Close()
		<-served
		streams.await(time.Minute)
		if open := streams.count(); open != 0 {
			t.Errorf("%d streams left open", open)
		}
		app.shared.leave()
		if n := app.shared.holders.Load(); n != 0 {
			t.Errorf("%d requests hold the inside", n)
		}
		cluster.Close()
		s.leave()
		exitContext = before
	})
	return s
}

// dial is the gateway's way to the broker, which can be cut.
func (s *gateway) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errors.New("connection refused")
	}
	conn, err := s.network.DialContext(ctx, network, address)
	if err == nil {
		s.live[conn] = struct{}{}
	}
	return conn, err
}

// cut takes the broker away.
func (s *gateway) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = true
	for conn := range s.live {
		conn.Close()
	}
	clear(s.live)
}

// wrapped is a ResponseWriter as Caddy's handlers wrap it: what is beneath can
// be had by Unwrap and by no assertion.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// notOurs is what the next handler answers.
const notOurs = http.StatusTeapot

// serve does what Caddy does around a handler.
func (s *gateway) serve(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Add(-1)
	if s.wrap != nil {
		w = s.wrap(w)
	} else {
		w = &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}
	}
	repl := caddy.NewReplacer()
	r = caddyhttp.PrepareRequest(r, repl, w, s.caddy)
	repl.Set("test.user", r.Header.Get("User"))
	handler := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return s.streams.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(notOurs)
			return nil
		}))
	})
	var err error
	if s.around != nil {
		err = s.around.ServeHTTP(w, r, handler)
	} else {
		err = handler(w, r)
	}
	var e caddyhttp.HandlerError
	switch {
	case errors.As(err, &e):
		w.WriteHeader(e.StatusCode)
	case err != nil:
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
}

// accept gives a stream, as if its request had just been queued.
func (s *gateway) accept(change ...func(*hub.Claims)) hub.Claims {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	place, err := s.app.inside.hub.Place(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	now := time.Now()
	c := hub.Claims{
		ID: record.NewID(place.Partition, place.Partitions), Scheme: "http", Host: siteHost, Topic: testTopic,
		ReplyTopic: place.Topic, ReplyPartition: place.Partition, ReplyPartitions: place.Partitions,
		Floor: place.Floor, ReplyIncarnation: place.Incarnation,
		Issued: now, Expires: now.Add(s.app.settings.ttl),
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// path is the stream URL of a stream.
func (s *gateway) path(c hub.Claims) string {
	s.t.Helper()
	token, err := s.app.keys.Seal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.app.settings.streams + "/" + token
}

// reply produces what a worker answers, and gives its cursor.
func (s *gateway) reply(c hub.Claims, r record.Reply) hub.Cursor {
	s.t.Helper()
	r.StreamID = c.ID
	// The last of a test's replies may come when its context has ended.
	ack, err := s.app.inside.producer.Produce(context.WithoutCancel(s.t.Context()), ingress.Request{Topic: c.ReplyTopic, Record: r.Record()})
	if err != nil {
		s.t.Fatal(err)
	}
	return hub.Cursor{Incarnation: ack.Incarnation, Partition: ack.Partition, Offset: ack.Offset}
}

// request makes a request with headers given as name and value in turn.
func (s *gateway) request(method, path string, headers ...string) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+siteHost+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// answer is a response that has been read.
type answer struct {
	*http.Response
	body string
}

// do sends a request and reads what comes, to its end.
func (s *gateway) do(method, path string, headers ...string) answer {
	s.t.Helper()
	response, err := s.client.Do(s.request(method, path, headers...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatalf("read %s %s: %v", method, path, err)
	}
	return answer{response, string(body)}
}

func (s *gateway) get(path string, headers ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, headers...)
}

// want fails unless the answer has the status and its body the texts.
func (a answer) want(t *testing.T, status int, texts ...string) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s, want %d: %s", a.Status, status, a.body)
	}
	for _, text := range texts {
		if !strings.Contains(a.body, text) {
			t.Errorf("%q is missing in %s", text, a.body)
		}
	}
	return a
}

// listener reads an event stream while it comes.
type listener struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Reader
	parser   sseParser
}

// listen opens an event stream.
func (s *gateway) listen(path string, headers ...string) *listener {
	s.t.Helper()
	response, err := s.client.Do(s.request(http.MethodGet, path, append([]string{"Accept", "text/event-stream"}, headers...)...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("%s, %v", response.Status, response.Header)
	}
	return &listener{t: s.t, response: response, lines: bufio.NewReader(response.Body)}
}

// next gives the next event, nil at the end of the stream.
func (l *listener) next() *sseEvent {
	l.t.Helper()
	for {
		line, err := l.lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			l.t.Fatalf("read event: %v", err)
		}
		if e := l.parser.line(strings.TrimSuffix(line, "\n")); e != nil {
			return e
		}
	}
}

// want fails unless the next event has this name, id and data.
func (l *listener) want(name, id, data string) {
	l.t.Helper()
	e := l.next()
	if e == nil {
		l.t.Fatalf("the stream ended, want event %q", name)
	}
	if want := (sseEvent{name: name, id: id, data: data}); *e != want {
		l.t.Fatalf("event %+v, want %+v", *e, want)
	}
}

// ends fails unless nothing more comes.
func (l *listener) ends() {
	l.t.Helper()
	if e := l.next(); e != nil {
		l.t.Fatalf("event %+v, want the end", *e)
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }
