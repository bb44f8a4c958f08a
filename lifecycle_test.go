package osmosis

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// house is Caddy itself in this process, serving a configuration on a socket.
// There is one such Caddy in a process, so these tests are not parallel, and as
// they use real connections their time is real too.
type house struct {
	t      *testing.T
	home   string
	client *http.Client
	scheme string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, home: t.TempDir(), scheme: "http"}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket())
	}}
	h.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		h.stop()
	})
	return h
}

func (h *house) socket() string { return filepath.Join(h.home, "http") }

// stop stops Caddy, and fails unless nothing is left of it.
func (h *house) stop() {
	h.t.Helper()
	if err := caddy.Stop(); err != nil {
		h.t.Error(err)
	}
	h.eventually("pools are empty", func() bool { return pooled() == 0 })
}

// pooled counts what is shared by configurations.
func pooled() int {
	n := 0
	for _, pool := range []*caddy.UsagePool{brokers, producers, insides, deliveries, surveys, leases, loops} {
		pool.Range(func(any, any) bool { n++; return true })
	}
	return n
}

// only gives the one value in a pool.
func only[T any](t *testing.T, pool *caddy.UsagePool) T {
	t.Helper()
	var values []T
	pool.Range(func(_, value any) bool {
		values = append(values, value.(T))
		return true
	})
	if len(values) != 1 {
		t.Fatalf("%d in the pool, want 1", len(values))
	}
	return values[0]
}

// eventually waits for what has to come true.
func (h *house) eventually(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	const bound = 30 * time.Second
	for deadline := time.Now().Add(bound); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within %s: %s", bound, what)
		}
	}
}

// config is a site with these handlers, and /up for what has no queue.
func (h *house) config(app *App, routes ...*Handler) []byte {
	h.t.Helper()
	handlers := []any{
		map[string]any{"handler": "osmosis_streams"},
		map[string]any{"handler": "subroute", "routes": []any{map[string]any{
			"match": []any{map[string]any{"path": []string{"/up"}}}, "handle": []any{map[string]any{"handler": "static_response", "body": "up"}}, "terminal": true,
		}}},
	}
	for _, route := range routes {
		handlers = append(handlers, caddyconfig.JSONModuleObject(route, "handler", "osmosis", nil))
	}
	type object = map[string]any
	config, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": h.storage()},
		"logging": object{"logs": object{
			"default": object{"writer": object{"output": "discard"}, "exclude": []string{"http.log.access"}},
			"access":  object{"writer": object{"output": "file", "filename": h.accessLog(), "roll": false}, "include": []string{"http.log.access"}},
		}},
		"apps": object{"osmosis": app, "http": object{"servers": object{"site": object{
			"listen": []string{"unix/" + h.socket()}, "automatic_https": object{"disable": true}, "logs": object{},
			"routes": []any{object{"handle": handlers}},
		}}}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return config
}

func (h *house) storage() string   { return filepath.Join(h.home, "storage") }
func (h *house) accessLog() string { return filepath.Join(h.home, "access.log") }

// load has Caddy run a configuration, in place of the one it may run.
func (h *house) load(app *App, routes ...*Handler) {
	h.t.Helper()
	if err := caddy.Load(h.config(app, routes...), true); err != nil {
		h.t.Fatal(err)
	}
	// A reload closes connections that rest, perhaps while the client takes one up.
	h.client.CloseIdleConnections()
}

// validate does what `caddy validate` does.
func (h *house) validate(app *App, routes ...*Handler) error {
	h.t.Helper()
	var config caddy.Config
	if err := json.Unmarshal(h.config(app, routes...), &config); err != nil {
		h.t.Fatal(err)
	}
	return caddy.Validate(&config)
}

// do makes a request and reads the answer.
func (h *house) do(method, path string, headers ...string) answer {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), method, h.scheme+"://localhost"+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	response := h.send(r)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer{response, string(body)}
}

// send sends a request that has no body. A server that is about to end, or that
// did not come to be, may take the connection up and close it unread: that is
// Caddy's handover from one listener to the next, which no handler sees.
func (h *house) send(r *http.Request) *http.Response {
	h.t.Helper()
	for unread := 0; ; unread++ {
		response, err := h.client.Do(r)
		if err == nil {
			return response
		}
		if unread == 3 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			h.t.Fatal(err)
		}
	}
}

// listen opens an event stream.
func (h *house) listen(path string) *listener {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.scheme+"://localhost"+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	response := h.send(r)
	h.t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		h.t.Fatal(response.Status)
	}
	return &listener{t: h.t, response: response, lines: bufio.NewReader(response.Body)}
}

// reply answers the request that a 202 was given for.
func (h *house) reply(i *inside, topic string, q accepted, body string) {
	h.t.Helper()
	rec := record.Reply{StreamID: q.ID, Body: []byte(body)}.Record()
	if _, err := i.producer.Produce(h.t.Context(), ingress.Request{Topic: topic, Record: rec}); err != nil {
		h.t.Fatal(err)
	}
}

// kafka starts a cluster in memory.
func (h *house) kafka(options ...kfake.Opt) *kfake.Cluster {
	h.t.Helper()
	cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, options...)...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(cluster.Close)
	return cluster
}

// `caddy validate` works where neither Kafka nor the disk is: in a build.
func TestValidateTouchesNothing(t *testing.T) {
	h := newHouse(t)
	t.Setenv("XDG_DATA_HOME", filepath.Join(h.home, "data"))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	named := filepath.Join(h.home, "named")
	scaled := &Scale{ScalerRaw: json.RawMessage(`{"type":"process","command":["touch","` + filepath.Join(h.home, "worker") + `"]}`)}
	for name, app := range map[string]*App{
		"kafka": {Kafka: []string{listener.Addr().String()}}, "nothing": {}, "embedded": {Embedded: &Embedded{Directory: named}},
	} {
		if err := h.validate(app, &Handler{Topic: testTopic, Scale: scaled}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, path := range []string{named, filepath.Join(caddy.AppDataDir(), "osmosis"), filepath.Join(h.storage(), keyPath), filepath.Join(h.home, "worker")} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := pooled(); n != 0 {
		t.Errorf("%d in the pools", n)
	}
	// Had anybody dialed before, they would come first.
	own, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	first, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != own.LocalAddr().String() {
		t.Errorf("the gateway dialed the broker")
	}
}

// What makes no sense is refused with what to write instead.
func TestConfigurationMistakes(t *testing.T) {
	h := newHouse(t)
	const day = caddy.Duration(24 * time.Hour)
	orders := func(change func(*Handler)) []*Handler {
		route := &Handler{Topic: testTopic}
		change(route)
		return []*Handler{route}
	}
	scaled := func(s Scale) []*Handler { return orders(func(r *Handler) { r.Scale = &s }) }
	process, delivering := json.RawMessage(`{"type":"process","command":["true"]}`), json.RawMessage(`{"type":"deliver"}`)
	for name, test := range map[string]struct {
		app    *App
		routes []*Handler
		want   string
	}{
		"both brokers":         {&App{Kafka: []string{"a:9092"}, Embedded: new(Embedded)}, nil, "kafka and embedded are both configured"},
		"root as prefix":       {&App{Streams: &Streams{Path: "/"}}, nil, "may not be the root"},
		"ttl":                  {&App{Token: &Token{TTL: day}}, nil, "longer than the replies are kept (24h0m0s): shorten the ttl, or raise"},
		"retention":            {&App{Replies: &Replies{Retention: caddy.Duration(time.Hour)}}, nil, "token ttl (12h0m0s) and produce_timeout (10s) together"},
		"produce_timeout":      {&App{ProduceTimeout: -1}, nil, "produce_timeout is -1ns; it has to be longer than 0"},
		"negative ttl":         {&App{Token: &Token{TTL: -1}}, nil, "token ttl is -1ns"},
		"negative retention":   {&App{Replies: &Replies{Retention: -1}}, nil, "replies retention is -1ns"},
		"max_wait":             {&App{Streams: &Streams{MaxWait: -1}}, nil, "streams max_wait"},
		"heartbeat":            {&App{Streams: &Streams{Heartbeat: -1}}, nil, "streams heartbeat"},
		"write_timeout":        {&App{Streams: &Streams{WriteTimeout: -1}}, nil, "streams write_timeout"},
		"max_open":             {&App{Streams: &Streams{MaxOpen: -1}}, nil, "streams max_open is -1; it has to be at least 1"},
		"max_open_per_client":  {&App{Streams: &Streams{MaxOpenPerClient: -1}}, nil, "streams max_open_per_client"},
		"partitions":           {&App{Create: &Create{Partitions: -1}}, nil, "create partitions"},
		"reply partitions":     {&App{Replies: &Replies{Partitions: -1}}, nil, "replies partitions"},
		"replication":          {&App{Create: &Create{Replication: -1}}, nil, "create replication is -1; leave it out"},
		"reply topic":          {&App{Replies: &Replies{Topic: "all replies"}}, nil, `topic "all replies"`},
		"short key":            {&App{Token: &Token{Keys: []string{"short"}}}, nil, "fewer than 16"},
		"unset key":            {&App{Token: &Token{Keys: []string{"{env.OSMOSIS_TEST_UNSET}"}}}, nil, "token key: "},
		"missing key file":     {&App{Token: &Token{Keys: []string{place(filepath.Join(h.home, "none"))}}}, nil, "token key: "},
		"address":              {&App{Kafka: []string{"kafka.internal"}}, nil, "host:port"},
		"no topic":             {&App{}, []*Handler{{}}, "a topic is missing; write `osmosis <topic>`"},
		"topic":                {&App{}, []*Handler{{Topic: "my orders"}}, "Kafka takes up to 249 letters"},
		"long topic":           {&App{}, []*Handler{{Topic: strings.Repeat("x", 250)}}, "Kafka takes up to 249 letters"},
		"dots":                 {&App{}, []*Handler{{Topic: ".."}}, "Kafka takes up to 249 letters"},
		"max_body":             {&App{}, orders(func(r *Handler) { r.MaxBody = -1 }), "max_body is -1; it has to be at least 1"},
		"wait":                 {&App{}, orders(func(r *Handler) { r.Wait = caddy.Duration(2 * time.Minute) }), "wait is 2m0s; it may be up to max_wait, 1m0s"},
		"negative wait":        {&App{}, orders(func(r *Handler) { r.Wait = -1 }), "wait is -1ns"},
		"scale without scaler": {&App{}, scaled(Scale{}), "no scaler; write how to run a worker"},
		"scale of no topic":    {&App{Scale: []*Scale{{ScalerRaw: process}}}, nil, "scale: a topic is missing"},
		"scale of no name":     {&App{Scale: []*Scale{{Topic: "a/b", ScalerRaw: process}}}, nil, `scale: topic "a/b"`},
		"scale upside down":    {&App{}, scaled(Scale{Min: 3, Max: 1, ScalerRaw: process}), "min is 3 and max is 1; write `max 3` or more"},
		"scale beyond default": {&App{}, scaled(Scale{Min: 11, ScalerRaw: process}), "min is 11 and max is 10; write `max 11` or more"},
		"scale below nothing":  {&App{}, scaled(Scale{Min: -1, Max: -1, ScalerRaw: process}), "min is -1"},
		"scale by nothing":     {&App{}, scaled(Scale{Concurrency: -1, ScalerRaw: process}), "concurrency -1"},
		"scale no deliver":     {&App{}, scaled(Scale{ScalerRaw: delivering}), "write `deliver { … }` on the route, or a scaler such as `process ./worker`"},
		"scale other group": {&App{}, orders(func(r *Handler) {
			r.Group, r.Scale, r.Deliver = "billing", &Scale{ScalerRaw: delivering}, &Deliver{Group: "shop", Routes: caddyhttp.RouteList{{}}}
		}), "delivers in the group shop; leave out `group billing`"},
		"scale tries": {&App{}, orders(func(r *Handler) {
			r.Scale, r.Deliver = &Scale{Concurrency: 2, ScalerRaw: delivering}, &Deliver{Routes: caddyhttp.RouteList{{}}}
		}), "say how many with max"},
		"scale twice":          {&App{Scale: []*Scale{{Topic: "a", ScalerRaw: process}, {Topic: "a", Group: "a", ScalerRaw: process}}}, nil, "scale a a is given twice"},
		"scale here and there": {&App{Scale: []*Scale{{Topic: testTopic, ScalerRaw: process}}}, scaled(Scale{ScalerRaw: process}), "scale orders orders is given twice"},
		"lease as topic":       {&App{}, []*Handler{{Topic: "osmosis.lease"}}, "topic osmosis.lease is the gateway's own"},
		"presence as topic":    {&App{}, []*Handler{{Topic: "osmosis.presence"}}, "topic osmosis.presence is the gateway's own"},
		"idle":                 {&App{}, scaled(Scale{Idle: -5, ScalerRaw: process}), "idle is -5ns"},
		"grace period":         {&App{}, scaled(Scale{ScalerRaw: json.RawMessage(`{"type":"process","command":["true"],"grace_period":-5}`)}), "grace_period is -5ns"},
		"unknown scaler":       {&App{}, scaled(Scale{ScalerRaw: json.RawMessage(`{"type":"none"}`)}), "load scaler"},
		"empty command":        {&App{}, scaled(Scale{ScalerRaw: json.RawMessage(`{"type":"process","command":[""]}`)}), "no command"},
		"drain":                {&App{}, scaled(Scale{Drain: -5, ScalerRaw: process}), "drain is -5ns"},
		"prefix":               {&App{Streams: &Streams{Path: "/a b/{x}/*"}}, nil, "cannot be the prefix"},
		"listen":               {&App{Embedded: &Embedded{Listen: "9092"}}, nil, `listen "9092": write it as host:port`},
		"max_bytes":            {&App{Embedded: &Embedded{MaxBytes: -1}}, nil, "max_bytes is -1"},
		"embedded retention":   {&App{Embedded: &Embedded{Retention: -5}}, nil, "retention is -5ns"},
		"addresses in one":     {&App{Kafka: []string{"a:9092,b:9092"}}, nil, "several with blanks between them"},
		"origin":               {&App{}, orders(func(r *Handler) { r.CORS = []string{"app.example.com"} }), `"app.example.com" is no origin`},
		"origin with a path":   {&App{}, orders(func(r *Handler) { r.CORS = []string{"https://x/path"} }), "is no origin"},
		"method":               {&App{}, orders(func(r *Handler) { r.Methods = []string{"PO ST"} }), "no name that HTTP knows"},
		"empty method":         {&App{}, orders(func(r *Handler) { r.Methods = []string{""} }), "no name that HTTP knows"},
		"method not queued":    {&App{}, orders(func(r *Handler) { r.Methods = []string{"POST", "trace"} }), "methods: TRACE is about the connection"},
		"body as owner":        {&App{}, orders(func(r *Handler) { r.Bind = "{http.request.body_base64}" }), "those who read a stream send no body"},
		"header":               {&App{}, orders(func(r *Handler) { r.Headers = []string{"X Foo"} }), "no name that HTTP knows"},
		"admit":                {&App{}, orders(func(r *Handler) { r.Admit = -1 }), "admit is -1ns"},
		"own topic replied to": {&App{Replies: &Replies{Topic: "osmosis.idempotency"}}, nil, "replies: topic osmosis.idempotency is the gateway's own"},
		"listen everywhere":    {&App{Embedded: &Embedded{Listen: ":9092"}}, nil, "name the address that workers dial"},
		"listen on no port":    {&App{Embedded: &Embedded{Listen: "127.0.0.1:kafka"}}, nil, "write it as host:port"},
		"reply topic as route": {&App{Replies: &Replies{Topic: testTopic}}, orders(func(*Handler) {}), "topic orders is where the replies go"},
		"own topic as route":   {&App{}, []*Handler{{Topic: "osmosis.control"}}, "is the gateway's own"},
		"reply topic scaled":   {&App{Scale: []*Scale{{Topic: defaultReplies, ScalerRaw: process}}}, nil, "is where the replies go"},
		"dead reply topic":     {&App{}, orders(func(r *Handler) { r.Deliver = &Deliver{DeadLetter: defaultReplies, Routes: caddyhttp.RouteList{{}}} }), "is where the replies go"},
		"no command":           {&App{}, scaled(Scale{ScalerRaw: json.RawMessage(`{"type":"process"}`)}), "no command"},
	} {
		if err := h.validate(test.app, test.routes...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", name, err, test.want)
		}
	}
}

// A key is made once, kept in storage, and the same for all that share it.
func TestTokenKey(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	rings := make([]*hub.Keyring, 3)
	var together sync.WaitGroup
	for i := range rings {
		together.Go(func() {
			a := &App{storage: storage, logger: zap.NewNop()}
			a.settings = a.effective()
			var err error
			if rings[i], err = a.loadKeys(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	together.Wait()
	if t.Failed() {
		return
	}
	for _, ring := range rings {
		token, err := ring.Seal(hub.Claims{ID: "x", Expires: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rings[0].Open(token); err != nil {
			t.Error(err)
		}
	}
}

// Of the configured keys the first seals and all open.
func TestConfiguredKeys(t *testing.T) {
	t.Setenv("OSMOSIS_TEST_KEY", "the key of last year")
	old := &App{Token: &Token{Keys: []string{"{env.OSMOSIS_TEST_KEY}"}}}
	both := &App{Token: &Token{Keys: []string{place(file(t, "key", "the key of this year\n")), "{env.OSMOSIS_TEST_KEY}"}}}
	only := &App{Token: &Token{Keys: []string{"the key of this year"}}}
	ring := func(a *App) *hub.Keyring {
		t.Helper()
		keys, err := a.loadKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	seal := func(a *App) string {
		t.Helper()
		token, err := ring(a).Seal(hub.Claims{ID: "x"})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for name, test := range map[string]struct {
		by, with *App
		opens    bool
	}{
		"old with both": {old, both, true}, "both with only the new": {both, only, true}, "new with both": {only, both, true},
		"old with only the new": {old, only, false}, "both with old": {both, old, false},
	} {
		if _, err := ring(test.with).Open(seal(test.by)); (err == nil) != test.opens {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStreamsPrefix(t *testing.T) {
	for path, want := range map[string]string{"": defaultStreams, "s": "/s", "/s/": "/s", "//a/b//": "/a/b", "/": ""} {
		if got := (&App{Streams: &Streams{Path: path}}).effective().streams; got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

// The embedded broker ends with its configuration, and what it took is there
// when it comes back; so is the token key.
func TestEmbeddedOutlivesARestart(t *testing.T) {
	h := newHouse(t)
	directory := filepath.Join(h.home, "kafka")
	app := &App{Embedded: &Embedded{Directory: directory, Listen: "127.0.0.1:0"}}
	h.load(app, &Handler{Topic: testTopic})
	a := h.do("POST", "/orders")
	q := a.queued(t)
	path := a.Header.Get("Location")
	h.reply(only[*inside](t, insides), defaultReplies, q, "kept")
	h.stop()
	lock := flock.New(filepath.Join(directory, "lock"))
	if locked, err := lock.TryLock(); !locked || err != nil {
		t.Fatalf("the directory is still in use: %v", err)
	}
	// While somebody else has it there is no gateway, and a clear word why.
	err := caddy.Load(h.config(app, &Handler{Topic: testTopic}), true)
	if err == nil || !strings.Contains(err.Error(), "another process uses this directory") || !strings.Contains(err.Error(), directory) {
		t.Errorf("%v", err)
	}
	if n := pooled(); n != 0 {
		t.Errorf("%d in the pools", n)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	h.load(app, &Handler{Topic: testTopic})
	h.do("GET", path+"/result", "Prefer", "wait=20").want(t, 200, "kept")
	h.do("POST", "/orders").want(t, 202)
}

// Where the embedded broker's port is taken, the error says both ways out.
func TestEmbeddedPortTaken(t *testing.T) {
	h := newHouse(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	err = caddy.Load(h.config(&App{Embedded: &Embedded{Directory: filepath.Join(h.home, "kafka"), Listen: address}}), true)
	if err == nil || !strings.Contains(err.Error(), "`embedded { listen … }`") || !strings.Contains(err.Error(), "`kafka "+address+"`") {
		t.Errorf("%v", err)
	}
}

// Another setting of the embedded broker needs the directory that the old one
// still has; the reload says so, and what ran goes on.
func TestEmbeddedCannotChange(t *testing.T) {
	h := newHouse(t)
	app := &App{Embedded: &Embedded{Directory: filepath.Join(h.home, "kafka"), Listen: "127.0.0.1:0"}}
	h.load(app, &Handler{Topic: testTopic})
	changed := *app.Embedded
	changed.MaxBytes = 1 << 30
	err := caddy.Load(h.config(&App{Embedded: &changed}, &Handler{Topic: testTopic}), true)
	if err == nil || !strings.Contains(err.Error(), errEmbeddedChanged.Error()) {
		t.Errorf("%v", err)
	}
	h.do("POST", "/orders").want(t, 202)
}

// A broker that is down at start takes the queue away and nothing else; the
// route comes back by itself.
func TestStartsWithoutBroker(t *testing.T) {
	h := newHouse(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	listener.Close()
	h.load(&App{Kafka: []string{address.String()}, ProduceTimeout: caddyDuration(500 * time.Millisecond)}, &Handler{Topic: testTopic})
	h.do("POST", "/orders").refused(t, 503, "Nothing was queued")
	h.do("GET", "/up").want(t, 200, "up")
	h.kafka(kfake.Ports(address.Port))
	h.eventually("202", func() bool { return h.do("POST", "/orders").StatusCode == http.StatusAccepted })
}

// The access log tells which stream a request began, and not how to read it.
func TestAccessLog(t *testing.T) {
	h := newHouse(t)
	h.load(&App{Kafka: h.kafka().ListenAddrs()}, &Handler{Topic: testTopic})
	a := h.do("POST", "/orders")
	q := a.queued(t)
	var line struct {
		Stream string `json:"osmosis_stream"`
		Status int
	}
	h.eventually("a line in the access log", func() bool {
		log, err := os.ReadFile(h.accessLog())
		return err == nil && json.Unmarshal(log, &line) == nil
	})
	if line.Stream != q.ID || line.Status != 202 {
		t.Errorf("%+v, want stream %s", line, q.ID)
	}
}

// A client that waits for leave to send its body and gets none is told at once:
// one that is too large, one that nobody owns, and one with a bad key.
func TestExpectContinue(t *testing.T) {
	h := newHouse(t)
	h.load(&App{Kafka: h.kafka().ListenAddrs()}, &Handler{Topic: testTopic, MaxBody: 10, Bind: "{http.request.header.User}"})
	for name, test := range map[string]struct {
		headers string
		status  int
	}{
		"too large": {"User: ada\r\nContent-Length: 11\r\n", 413},
		"nobody's":  {"Content-Length: 10\r\n", 401},
		"bad key":   {"User: ada\r\nIdempotency-Key: \"\r\nContent-Length: 10\r\n", 400},
	} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", h.socket())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /orders HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"+test.headers+"\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != test.status || !response.Close {
			t.Errorf("%s: %s, closes %t", name, response.Status, response.Close)
		}
	}
}
