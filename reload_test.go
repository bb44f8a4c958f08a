package osmosis

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// A stream and its sight of the broker outlive a reload, of which the broker
// learns nothing.
func TestReload(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	var joins atomic.Int64
	cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		joins.Add(1)
		return nil, nil, false
	})
	app := func() *App { return &App{Kafka: cluster.ListenAddrs(), Replies: &Replies{Partitions: 2}} }
	h.load(app(), &Handler{Topic: testTopic})
	before := only[*inside](t, insides)
	a := h.do("POST", "/orders")
	q := a.queued(t)
	l := h.listen(a.Header.Get("Location"))
	group := "osmosis.gateways." + defaultReplies
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := cluster.WaitGroupStable(ctx, group, 1); err != nil {
		t.Fatal(err)
	}
	joined := joins.Load()

	// Limits, routes and keys are read anew; none of them is in the pool's key.
	changed := app()
	changed.Streams = &Streams{MaxWait: caddyDuration(5 * time.Second), MaxOpen: 10}
	changed.ProduceTimeout = caddyDuration(5 * time.Second)
	h.load(changed, &Handler{Topic: testTopic, MaxBody: 100}, &Handler{Topic: "other"})
	if after := only[*inside](t, insides); after != before {
		t.Errorf("the reload made a new hub")
	}
	h.load(app(), &Handler{Topic: testTopic, Wait: caddyDuration(time.Millisecond)})
	if n := joins.Load(); n != joined {
		t.Errorf("%d JoinGroup requests, before the reload %d", n, joined)
	}
	h.reply(before, defaultReplies, q, "over the reload")
	if e := l.next(); e == nil || e.data != "over the reload" {
		t.Errorf("%+v", e)
	}
	if e := l.next(); e == nil || e.name != "end" {
		t.Errorf("%+v", e)
	}
	l.ends()
	h.client.CloseIdleConnections() // the stream's was the old server's
	h.do("POST", "/orders").want(t, 202)
}

// The gateways' group is told which keys open tokens here, also of those that a
// reload brings.
func TestReloadWithOtherKeys(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	var told atomic.Pointer[string]
	cluster.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		metadata := string(r.(*kmsg.JoinGroupRequest).Protocols[0].Metadata)
		told.Store(&metadata)
		return nil, nil, false
	})
	for _, secret := range []string{"the first of two secrets", "the second of two secrets"} {
		h.load(&App{Kafka: cluster.ListenAddrs(), Token: &Token{Keys: []string{secret}}}, &Handler{Topic: testTopic})
		keys, err := hub.NewKeyring(secret)
		if err != nil {
			t.Fatal(err)
		}
		h.eventually("the group is told", func() bool {
			metadata := told.Load()
			return metadata != nil && strings.Contains(*metadata, keys.Fingerprint())
		})
	}
	only[*inside](t, insides)
}

// Another reply topic is another hub, over the same connection; the old one
// stays for as long as a stream needs it.
func TestReloadWithOtherReplyTopic(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	h.load(&App{Kafka: cluster.ListenAddrs()}, &Handler{Topic: testTopic})
	before := only[*inside](t, insides)
	a := h.do("POST", "/orders")
	q := a.queued(t)
	path := a.Header.Get("Location")
	l := h.listen(path)

	h.load(&App{Kafka: cluster.ListenAddrs(), Replies: &Replies{Topic: "answers"}}, &Handler{Topic: testTopic})
	n := 0
	insides.Range(func(any, any) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d hubs", n)
	}
	if producer := only[producerEntry](t, producers); producer.Producer != before.producer {
		t.Error("the reload made a new producer")
	}
	only[*brokerEntry](t, brokers)
	a = h.do("POST", "/orders")
	next := a.queued(t)
	// The new configuration serves streams of the old topic too.
	late := h.listen(path)
	h.reply(before, defaultReplies, q, "old topic")
	for _, l := range []*listener{l, late} {
		if e := l.next(); e == nil || e.data != "old topic" {
			t.Errorf("%+v", e)
		}
		if e := l.next(); e == nil || e.name != "end" {
			t.Errorf("%+v", e)
		}
		l.ends()
	}
	h.eventually("the old hub is gone", func() bool {
		n := 0
		insides.Range(func(any, any) bool { n++; return true })
		return n == 1
	})
	after := only[*inside](t, insides)
	if after == before {
		t.Error("the new hub is the old one")
	}
	h.reply(after, "answers", next, "new topic")
	h.do("GET", a.Header.Get("Location")+"/result", "Prefer", "wait=20").want(t, 200, "new topic")
}

// A reload that fails leaves everything as it was, and no trace of its own.
func TestReloadFails(t *testing.T) {
	h := newHouse(t)
	cluster := h.kafka()
	h.load(&App{Kafka: cluster.ListenAddrs()}, &Handler{Topic: testTopic})
	bad := strings.Replace(string(h.config(&App{Kafka: cluster.ListenAddrs(), Replies: &Replies{Topic: "answers"}}, &Handler{Topic: testTopic})),
		"unix/"+h.socket(), "unix/"+filepath.Join(h.home, "no", "such", "directory"), 1)
	if err := caddy.Load([]byte(bad), true); err == nil {
		t.Error("loaded")
	}
	h.eventually("one hub", func() bool { return pooled() == 3 })
	h.client.CloseIdleConnections() // they may be those of the server that did not come to be
	h.do("POST", "/orders").want(t, 202)
}
