package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// cuttable is a client whose connections can be cut, as a process that is
// killed leaves them.
func (r *rig) cuttable() (*broker.Client, func()) {
	var mu sync.Mutex
	var conns []net.Conn
	dead := false
	c := broker.New(broker.Config{Addresses: r.cluster.ListenAddrs(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := r.network.DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		if dead {
			if err == nil {
				conn.Close()
			}
			return nil, errors.New("killed")
		}
		conns = append(conns, conn)
		return conn, err
	}})
	r.t.Cleanup(c.Close)
	return c, func() {
		mu.Lock()
		defer mu.Unlock()
		dead = true
		for _, conn := range conns {
			conn.Close()
		}
	}
}

// What is done is not done again by who comes after, and what failed before
// counts for them too.
func TestRestart(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries sync.Map
		h := func(w http.ResponseWriter, req *http.Request) error {
			id := req.Header.Get(HeaderStreamID)
			n, _ := tries.LoadOrStore(id, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			if id == "s0" {
				return errors.New("no luck")
			}
			return echo(w, req)
		}
		slow := func(o *Options) { o.Attempts, o.BackoffMin, o.BackoffMax = 4, 20*time.Second, 20*time.Second }
		d := r.deliver(options(h, slow))
		r.send(5, keyless)
		r.want("s4", "200 4")
		r.want("s0", "retrying 1: 0 no luck")
		d.Close()
		if p := r.committed(); p.base != 0 || p.tries[0].failed != 1 || len(p.done) != 1 {
			t.Errorf("%+v", p)
		}
		d = r.deliver(options(h, slow))
		r.want("s0", "retrying 1: 0 no luck", "retrying 2: 0 no luck")
		d.Close()
		r.deliver(options(h, slow))
		r.done(5)
		tries.Range(func(id, n any) bool {
			want := int64(1)
			if id == "s0" {
				want = 4
			}
			if got := n.(*atomic.Int64).Load(); got != want {
				t.Errorf("%s was tried %d times, want %d", id, got, want)
			}
			return true
		})
	})
}

// A process that dies leaves its tries uncounted, one for each death, and
// nothing that it had acknowledged is lost or done again.
func TestCrash(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var effects sync.Map
		var hang atomic.Bool
		h := func(w http.ResponseWriter, req *http.Request) error {
			id := req.Header.Get(HeaderStreamID)
			if hang.Load() && id != "s0" {
				<-req.Context().Done()
				return req.Context().Err()
			}
			n, _ := effects.LoadOrStore(id, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			return echo(w, req)
		}
		client, kill := r.cuttable()
		hang.Store(true)
		r.deliver(options(h), func(c *Config) { c.Broker = client })
		r.send(20, func(i int) string { return strconv.Itoa(i % 4) })
		r.want("s0", "200 0")
		r.eventually(func() bool { return r.committed().base == 1 }, func() string { return fmt.Sprint(r.committed()) })
		kill()
		hang.Store(false)
		r.deliver(options(h))
		r.done(20)
		for i := range 20 {
			n, ok := effects.Load("s" + strconv.Itoa(i))
			if !ok || n.(*atomic.Int64).Load() != 1 {
				t.Errorf("s%d: %v", i, n)
			}
		}
	})
}

// Past its deadline a member neither begins a try nor sends a reply.
func TestDeadline(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var begun atomic.Int64
		release := make(chan struct{})
		h := func(w http.ResponseWriter, req *http.Request) error {
			begun.Add(1)
			<-release
			return echo(w, req)
		}
		client, kill := r.cuttable()
		r.deliver(options(h, func(o *Options) { o.Concurrency = 1 }), func(c *Config) { c.Broker = client })
		r.send(2, keyless)
		r.eventually(func() bool { return begun.Load() == 1 }, func() string { return "no try" })
		kill()
		pass(sessionTimeout - margin + time.Second)
		close(release)
		pass(time.Minute)
		if n, told := begun.Load(), r.replies()["s0"]; n != 1 || fmt.Sprint(told) != "[delivering 1: 0 ]" {
			t.Errorf("%d tries, %v", n, told)
		}
	})
}

// A failed try is committed before the next, and a commit that the broker
// refuses for a while holds the next try up.
func TestTryIsCommittedBeforeTheNext(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var refuse atomic.Bool
		r.cluster.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			if !refuse.Load() {
				return nil, nil, false
			}
			answer := req.ResponseKind().(*kmsg.OffsetCommitResponse)
			for _, topic := range req.(*kmsg.OffsetCommitRequest).Topics {
				at := kmsg.NewOffsetCommitResponseTopic()
				at.Topic, at.TopicID = topic.Topic, topic.TopicID
				for _, p := range topic.Partitions {
					ap := kmsg.NewOffsetCommitResponseTopicPartition()
					ap.Partition, ap.ErrorCode = p.Partition, 14 // coordinator load in progress
					at.Partitions = append(at.Partitions, ap)
				}
				answer.Topics = append(answer.Topics, at)
			}
			return answer, nil, true
		})
		var tries atomic.Int64
		r.deliver(options(func(_ http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "first" {
				return nil
			}
			tries.Add(1)
			return errors.New("no luck")
		}))
		if _, err := r.put(t.Context(), testTopic, 0, r.request("first", "", "")); err != nil {
			t.Fatal(err)
		}
		r.done(1)
		refuse.Store(true)
		r.send(1, keyless)
		pass(time.Minute)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries while the first is not committed", n)
		}
		refuse.Store(false)
		r.done(2)
		if n := tries.Load(); n != 3 {
			t.Errorf("%d tries", n)
		}
	})
}

// Whoever finds metadata that cannot be read leaves the partition alone.
func TestUnreadableProgress(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		d := r.deliver(options(echo))
		r.send(1, keyless)
		r.done(1)
		d.Close()
		r.commit(0, "osmosis9:from the future")
		r.deliver(options(echo))
		r.send(1, keyless)
		pass(30 * time.Second)
		if told := r.replies()["s0"]; len(told) != 1 {
			t.Errorf("%v", told)
		}
	})
}

// A record that is there twice is done once, and what a request's client has
// called off or waits for no longer is not done at all.
func TestNotDone(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		h := func(w http.ResponseWriter, req *http.Request) error { tries.Add(1); return echo(w, req) }
		d := r.deliver(options(h))
		r.send(1, keyless)
		r.send(1, keyless)
		r.done(2)
		d.Close()
		r.send(1, keyless) // the window is read anew by who comes after
		r.deliver(options(h))
		r.done(3)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries of one request", n)
		}
		late := r.request("late", "", "x")
		for i, header := range late.Headers {
			if header.Key == record.HeaderExpires {
				late.Headers[i].Value = []byte(strconv.FormatInt(time.Now().UnixMilli(), 10))
			}
		}
		if _, err := r.put(t.Context(), testTopic, 0, late, record.Record{Value: []byte("no request")}); err != nil {
			t.Fatal(err)
		}
		r.done(5)
		if n := tries.Load(); n != 1 || len(r.replies()["late"]) > 0 {
			t.Errorf("%d tries, %v", n, r.replies())
		}
		// What is no request goes where someone looks at it.
		if dead := r.read(testDead); len(dead) != 1 || string(dead[0].Value) != "no request" {
			t.Errorf("%+v", dead)
		}
	})
}
