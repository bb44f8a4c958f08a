package deliver

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func (r *rig) cancel(id string) {
	r.t.Helper()
	c := Cancellation{Cancel: id, Expires: time.Now().Add(time.Hour).UnixMilli()}
	if _, err := r.put(r.t.Context(), testControl, 0, record.Record{Value: []byte("not for us")}, c.Record()); err != nil {
		r.t.Fatal(err)
	}
}

// What is cancelled before anybody delivers is not tried, what waits for
// another try has no other, and a try that runs is called off.
func TestCancel(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		off := make(chan error, 1)
		h := func(w http.ResponseWriter, req *http.Request) error {
			tries.Add(1)
			switch req.Header.Get(HeaderStreamID) {
			case "s1":
				w.WriteHeader(http.StatusBadGateway)
			case "s2":
				<-req.Context().Done()
				off <- req.Context().Err()
				return req.Context().Err()
			}
			return nil
		}
		r.send(3, keyless)
		r.cancel("s0")
		r.deliver(options(h, func(o *Options) { o.BackoffMin, o.BackoffMax = time.Minute, time.Minute }))
		r.want("s1", "retrying 1: 502 Bad Gateway")
		r.cancel("s1")
		r.want("s2", "delivering 1: 0 ")
		r.cancel("s2")
		<-off
		r.done(3)
		told := r.replies()
		if n := tries.Load(); n != 2 || len(told["s0"]) != 0 || len(told["s1"]) != 1 || len(told["s2"]) != 1 || len(r.read(testDead)) > 0 {
			t.Errorf("%d tries, %v", n, told)
		}
	})
}

// A control topic that is not there holds nobody up.
func TestNoControlTopic(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		begun := time.Now()
		r.deliver(options(echo), func(c *Config) { c.Control = "none" })
		r.send(1, keyless)
		r.want("s0", "200 0")
		if took := time.Since(begun); took > controlWait {
			t.Errorf("waited %s", took)
		}
	})
}

func TestCancellationsAreBounded(t *testing.T) {
	c := newControl()
	now := time.Now()
	take := func(id string, expires time.Time) {
		c.take(Cancellation{Cancel: id, Expires: expires.UnixMilli()}, now)
	}
	take("past", now.Add(-time.Second))
	take(strings.Repeat("x", maxIDLength+1), now.Add(time.Hour))
	take("soon", now.Add(time.Minute))
	for i := range maxCancellations {
		take(strconv.Itoa(i), now.Add(time.Hour))
	}
	if c.has("past") || !c.has("soon") || c.has(strconv.Itoa(maxCancellations-1)) || len(c.cancelled) != maxCancellations {
		t.Errorf("%d", len(c.cancelled))
	}
	now = now.Add(10 * time.Minute)
	if take("last", now.Add(time.Hour)); !c.has("last") || c.has("soon") {
		t.Error("what is past was not forgotten")
	}
}

// offline is a Delivery that no broker is behind: for what is decided in memory.
func offline() *Delivery {
	d := &Delivery{config: Config{Topic: testTopic, Group: testGroup}, log: zap.NewNop(), control: newControl(), windows: newWindows(newMemory(maxSeen))}
	d.handovers = newHandovers(d)
	d.queue = newQueue(10, 1<<30, func(*job) {}, func() {})
	d.queue.run, d.queue.ended = d.handovers.own, func(*job, bool) {}
	return d
}

// Whatever is on the control topic, what it makes of it can be committed and read
// again.
func FuzzControl(f *testing.F) {
	other := run{1, 2, 3, 4, 5, 6, 7, 8}
	sender := offline()
	f.Add(Cancellation{Cancel: "id", Expires: 1 << 42}.Record().Value)
	for _, m := range []message{
		{Run: other.String(), Sign: 7},
		{Dead: other.String(), Sign: 7},
		sender.outcomeMessage(0, outcome{offset: 3, by: other, try: 2, state: outcomeDone, id: "s"}),
		sender.outcomeMessage(0, outcome{offset: 3, by: other, try: 2, state: outcomeFailed, past: past{failed: 3, cuts: 1, started: true, due: 9, code: 503, reason: "x"}}),
	} {
		value, err := json.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		d := offline()
		var p progress
		p.set(3, past{failed: 1, by: other})
		d.queue.assign(0, p, newWindow(0), true)
		d.heed(value)
		d.heed(value)
		for id := range d.control.cancelled {
			if id == "" || len(id) > maxIDLength {
				t.Errorf("%q", id)
			}
		}
		for _, s := range d.queue.changes() {
			if _, err := parseProgress(s.offset, s.metadata); err != nil || len(s.metadata) > maxMetadata {
				t.Errorf("%d bytes, %v", len(s.metadata), err)
			}
		}
	})
}

// The first sign of a site finds no control topic. It is read as soon as that is
// made, since a hand-over waits for it.
func TestControlTopicIsMadeForTheFirstSign(t *testing.T) {
	for range 5 {
		virtually(t, func(t *testing.T, r *rig) {
			d := r.deliver(options(echo), func(c *Config) { c.Control = "fresh" })
			pass(20 * time.Second)
			if err := r.cluster.CreateTopic("fresh", 1, nil); err != nil {
				t.Fatal(err)
			}
			for d.handovers.signNow(t.Context()) == 0 {
				pass(20 * time.Millisecond) // the test's own client has not heard of the topic
			}
			pass(200 * time.Millisecond)
			if !d.handovers.alive(d.handovers.owner()) {
				t.Error("the sign was not read")
			}
		})
	}
}
