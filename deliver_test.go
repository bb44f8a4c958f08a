package osmosis

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answering is a deliver block with one handler, in JSON.
func answering(t *testing.T, handler map[string]any) *Deliver {
	t.Helper()
	raw, err := json.Marshal(handler)
	if err != nil {
		t.Fatal(err)
	}
	return &Deliver{Routes: caddyhttp.RouteList{{HandlersRaw: []json.RawMessage{raw}}}}
}

// respond answers with what its placeholders expand to.
func respond(t *testing.T, body string) *Deliver {
	t.Helper()
	return answering(t, map[string]any{"handler": "static_response", "body": body})
}

// What is queued is answered by the handlers of the block, which see the
// request as it was; what is not queued goes straight through them.
func TestDeliver(t *testing.T) {
	h := newHouse(t)
	h.load(&App{Kafka: h.kafka().ListenAddrs()}, &Handler{
		Topic: testTopic, Wait: caddyDuration(defaultMaxWait),
		Deliver: respond(t, "{http.request.method} {http.request.uri} {http.request.host} {http.request.header.X-Test}{http.request.header.Accept-Language} {http.request.header.Osmosis-Attempt}"),
	})
	h.do("POST", "/orders?rush=1", "X-Test", "secret", "Accept-Language", "eo").want(t, 200, "POST /orders?rush=1 localhost eo 1")
	h.do("GET", "/orders?rush=1", "X-Test", "open").want(t, 200, "GET /orders?rush=1 localhost open")
}

// A handler's error is a failed try, and what is given up goes to the dead
// letters, whose topic is made for it.
func TestDeliverGivesUp(t *testing.T) {
	h := newHouse(t)
	d := answering(t, map[string]any{"handler": "error", "error": "out of stock", "status_code": 507})
	d.Attempts = 1
	h.load(&App{Kafka: h.kafka().ListenAddrs()}, &Handler{Topic: testTopic, Wait: caddyDuration(defaultMaxWait), Deliver: d})
	h.do("POST", "/orders").want(t, http.StatusBadGateway, "The request was given up after one attempt: out of stock.")
	if topic, err := only[*inside](t, insides).client.Topic(t.Context(), testTopic+".dlq"); err != nil {
		t.Errorf("%+v %v", topic, err)
	}
}

// A reload changes who answers and leaves the membership alone; one that fails
// changes nothing.
func TestDeliverOverReloads(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	var joins atomic.Int64
	cluster.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if r.(*kmsg.JoinGroupRequest).Group == testTopic {
			joins.Add(1)
		}
		return nil, nil, false
	})
	app := func() *App { return &App{Kafka: cluster.ListenAddrs()} }
	route := func(body string) *Handler {
		return &Handler{Topic: testTopic, Wait: caddyDuration(defaultMaxWait), Deliver: respond(t, body)}
	}
	h.load(app(), route("one"))
	h.do("POST", "/orders").want(t, 200, "one")
	joined := joins.Load()
	h.load(app(), route("two"))
	h.do("POST", "/orders").want(t, 200, "two")
	bad := strings.Replace(string(h.config(app(), route("three"))), "unix/"+h.socket(), "unix/"+h.home+"/no/such/directory", 1)
	if caddy.Load([]byte(bad), true) == nil {
		t.Error("loaded")
	}
	h.client.CloseIdleConnections() // they may be those of the server that did not come to be
	h.do("POST", "/orders").want(t, 200, "two")
	if n := joins.Load(); n != joined {
		t.Errorf("%d JoinGroup requests, before the reloads %d", n, joined)
	}
	h.load(app(), &Handler{Topic: testTopic})
	h.eventually("the group is left", func() bool {
		n := 0
		deliveries.Range(func(any, any) bool { n++; return true })
		return n == 0
	})
}

func TestDeliverMistakes(t *testing.T) {
	h := newHouse(t)
	app := &App{Kafka: []string{"127.0.0.1:1"}}
	for name, test := range map[string]struct {
		routes []*Handler
		want   string
	}{
		"nothing answers": {[]*Handler{{Topic: testTopic, Deliver: &Deliver{}}}, "nothing that answers"},
		"twice":           {[]*Handler{{Topic: testTopic, Deliver: respond(t, "a")}, {Topic: testTopic, Deliver: respond(t, "b")}}, "delivered twice in the group orders"},
		"own dead letter": {[]*Handler{{Topic: testTopic, Deliver: &Deliver{DeadLetter: testTopic, Routes: respond(t, "a").Routes}}}, "the dead-letter topic is the topic itself"},
		"bad dead letter": {[]*Handler{{Topic: testTopic, Deliver: &Deliver{DeadLetter: "a/b", Routes: respond(t, "a").Routes}}}, `topic "a/b"`},
		"attempts":        {[]*Handler{{Topic: testTopic, Deliver: &Deliver{Attempts: -1, Routes: respond(t, "a").Routes}}}, "at least 1"},
		"backoff":         {[]*Handler{{Topic: testTopic, Deliver: &Deliver{BackoffMin: 5, BackoffMax: 1, Routes: respond(t, "a").Routes}}}, "backoff goes from"},
		"no such handler": {[]*Handler{{Topic: testTopic, Deliver: answering(t, map[string]any{"handler": "no_such"})}}, "no_such"},
	} {
		if err := h.validate(app, test.routes...); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if err := h.validate(app, &Handler{Topic: testTopic, Deliver: respond(t, "a")}, &Handler{Topic: testTopic, Deliver: &Deliver{Group: "other", Routes: respond(t, "b").Routes}}); err != nil {
		t.Errorf("two groups: %v", err)
	}
}
