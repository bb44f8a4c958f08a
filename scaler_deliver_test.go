package osmosis

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

var scaledDeliver = json.RawMessage(`{"type":"deliver"}`)

// Tries follow what waits: few when nothing does, more when they take long, and
// never more than max. A reload with other limits leaves the group alone.
func TestDeliverScaler(t *testing.T) {
	h := newHouse(t)
	var now, most atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-time.After(300 * time.Millisecond)
	}))
	defer upstream.Close()
	route := func(most int) *Handler {
		d := answering(t, map[string]any{"handler": "reverse_proxy", "upstreams": []any{map[string]any{"dial": strings.TrimPrefix(upstream.URL, "http://")}}})
		d.Concurrency = 3
		return &Handler{Topic: testTopic, Deliver: d, Scale: &Scale{Max: most, Drain: caddyDuration(time.Second), Idle: caddyDuration(time.Second), ScalerRaw: scaledDeliver}}
	}
	app := func() *App { return &App{Kafka: h.kafka().ListenAddrs()} }()
	h.load(app, route(8))
	told := func() scaleReport { return only[*scaling](t, loops).report() }
	if r := told(); *r.Running > 3 || r.Min != 1 || r.Max != 8 {
		t.Errorf("at the beginning %d tries run at once, from %d to %d", *r.Running, r.Min, r.Max)
	}
	h.eventually("one try is enough", func() bool { return *told().Running == 1 })
	for range 60 {
		h.do("POST", "/orders").want(t, http.StatusAccepted)
	}
	h.eventually("more tries run at once", func() bool { return *told().Running > 3 })
	h.load(app, route(6))
	h.eventually("but fewer are allowed", func() bool { return *told().Running <= 6 })
	h.eventually("all is done", func() bool { r := told(); return *r.Running == 1 && *r.Backlog == 0 })
	if n := most.Load(); n < 4 || n > 8 {
		t.Errorf("up to %d tries ran at once", n)
	}
	h.load(app, &Handler{Topic: testTopic, Deliver: route(6).Deliver})
	h.eventually("the loop has ended", func() bool { return len(scalings()) == 0 })
}

// A scaler that has nothing to scale is found out when the configuration starts,
// where it cannot be before.
func TestDeliverScalerWithoutDelivery(t *testing.T) {
	h := newHouse(t)
	scale := &Scale{Topic: "mails", Group: "post", ScalerRaw: scaledDeliver}
	err := caddy.Load(h.config(&App{Kafka: h.kafka().ListenAddrs(), Scale: []*Scale{scale}}, &Handler{Topic: testTopic}), true)
	if err == nil || !strings.Contains(err.Error(), "scale mails post: nothing is delivered here; write `deliver { … }` on a route of mails with the group post, or `osmosis_deliver mails post`") {
		t.Error(err)
	}
	h.eventually("nothing is left", func() bool { return pooled() == 0 })
}

// The delivery's concurrency is the default of max, and so it bounds min.
func TestMoreTriesThanTheDeliveryHas(t *testing.T) {
	h := newHouse(t)
	d := respond(t, "done")
	d.Concurrency = 4
	err := caddy.Load(h.config(&App{Kafka: h.kafka().ListenAddrs()}, &Handler{Topic: testTopic, Deliver: d, Scale: &Scale{Min: 20, ScalerRaw: scaledDeliver}}), true)
	if err == nil || !strings.Contains(err.Error(), "min is 20 and max is 4; write `max 20` or more") {
		t.Error(err)
	}
	h.eventually("nothing is left", func() bool { return pooled() == 0 })
}

// looking gives always the same look.
type looking struct{ autoscale.Measurement }

func (l looking) Next(context.Context, autoscale.Want) (autoscale.Measurement, error) {
	return l.Measurement, nil
}

// Without a delivery at work there are no partitions of its own, and others'
// looks are not touched.
func TestOwnShare(t *testing.T) {
	h := newHouse(t)
	addresses := h.kafka().ListenAddrs()
	h.load(&App{Kafka: addresses}, &Handler{Topic: testTopic, Deliver: respond(t, "done")})
	h.do("POST", "/orders", "Prefer", "wait=20").want(t, 200, "done")
	tries := &tries{of: only[*delivery](t, deliveries)}
	partitions := make([]autoscale.Partition, 10) // two more than there are
	own := &ownShare{Source: looking{autoscale.Measurement{Members: 5, Partitions: partitions}}, tries: tries}
	m, err := own.Next(t.Context(), autoscale.Want{})
	if err != nil || m.WorkTime <= 0 || m.Members != tries.Running() {
		t.Errorf("%+v %v", m, err)
	}
	for i, p := range m.Partitions {
		if p.Elsewhere != (i >= 8) || partitions[i].Elsewhere {
			t.Errorf("partition %d: %+v", i, p)
		}
	}
	// Where it has lost them they count for a while, and then no more.
	h.load(&App{Kafka: addresses}, &Handler{Topic: testTopic})
	h.eventually("it has left the group", func() bool { return len(tries.of.Load().Partitions) == 0 })
	for look, elsewhere := range map[int]bool{1: false, fewLooks: false, fewLooks + 1: true} {
		own.none = look - 1
		own.had = []int32{0}
		if m, err = own.Next(t.Context(), autoscale.Want{}); err != nil || m.Partitions[0].Elsewhere != elsewhere {
			t.Errorf("at look %d without partitions: %+v %v", look, m.Partitions[0], err)
		}
	}
	tries.Scale(autoscale.Order{Workers: 0})
	if n := tries.Running(); n != 1 {
		t.Errorf("%d tries where none is wanted, want 1", n)
	}
	tries.Close()
}
