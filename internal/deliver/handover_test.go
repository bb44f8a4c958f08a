package deliver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// site is an upstream whose answers take a minute. Every other one comes in parts.
type site struct {
	mu    sync.Mutex
	tries map[string][]string // by stream, how each try has gone
}

func newSite() *site { return &site{tries: make(map[string][]string)} }

func (s *site) answer(w http.ResponseWriter, req *http.Request) error {
	id := req.Header.Get(HeaderStreamID)
	s.mu.Lock()
	s.tries[id] = append(s.tries[id], "runs")
	n := len(s.tries[id]) - 1
	s.mu.Unlock()
	end := func(how string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tries[id][n] = how
	}
	for part := range 6 {
		select {
		case <-time.After(10 * time.Second):
		case <-req.Context().Done():
			end("cut")
			return req.Context().Err()
		}
		fmt.Fprintf(w, "%d.", part)
		if strings.HasPrefix(id, "parts") {
			_ = http.NewResponseController(w).Flush()
		}
	}
	end("done")
	return nil
}

func (s *site) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counted := make(map[string]int)
	for _, tries := range s.tries {
		counted[strings.Join(tries, " ")]++
	}
	return counted
}

func toSpread(c *Config) { c.Topic = "spread" }

// jobs puts requests on all partitions, half of them for answers in parts.
func (r *rig) jobs(partitions int32, each int) {
	r.t.Helper()
	for p := range partitions {
		for i := range each {
			kind := "whole"
			if i%2 == 0 {
				kind = "parts"
			}
			id := fmt.Sprintf("%s-%d-%d", kind, p, i)
			if _, err := r.put(r.t.Context(), "spread", p, r.request(id, id, id)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// ends counts how the streams have ended, and what was told before.
func (r *rig) ends() map[string]int {
	r.t.Helper()
	counted := make(map[string]int)
	for id, told := range r.replies() {
		var text strings.Builder
		for _, thing := range told {
			if !strings.HasPrefix(thing, "delivering") {
				text.WriteString(strings.TrimPrefix(thing, "part "))
				text.WriteString("|")
			}
		}
		kind, _, _ := strings.Cut(id, "-")
		counted[kind+": "+text.String()]++
	}
	return counted
}

const (
	wholeAnswer  = "whole: 200 0.1.2.3.4.5.|"
	partedAnswer = "parts: 200 0.|200 1.|200 2.|200 3.|200 4.|200 5.|"
)

// Members come and go, and no try is cut or repeated.
func TestTriesOutliveRebalances(t *testing.T) {
	const partitions, each = 12, 9
	longDrain := func(o *Options) { o.Concurrency, o.Drain, o.Timeout = 200, 70*time.Second, 5*time.Minute }
	for name, change := range map[string]func(r *rig, s *site, members []*Delivery){
		"one joins":  func(r *rig, s *site, _ []*Delivery) { r.deliver(options(s.answer, longDrain), toSpread) },
		"one leaves": func(_ *rig, _ *site, members []*Delivery) { members[0].Close() },
		"all are replaced": func(r *rig, s *site, members []*Delivery) {
			for _, d := range members {
				r.deliver(options(s.answer, longDrain), toSpread)
				pass(5 * time.Second)
				go d.Close()
				pass(5 * time.Second)
			}
		},
		"five more and all others go": func(r *rig, s *site, members []*Delivery) {
			for range 5 {
				r.deliver(options(s.answer, longDrain), toSpread)
			}
			pass(5 * time.Second)
			for _, d := range members {
				go d.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				s := newSite()
				var members []*Delivery
				for range 3 {
					members = append(members, r.deliver(options(s.answer, longDrain), toSpread))
				}
				pass(10 * time.Second)
				r.jobs(partitions, each)
				pass(5 * time.Second)
				if n := s.all()["runs"]; n != partitions*each {
					t.Fatalf("%d tries run, want %d", n, partitions*each)
				}
				change(r, s, members)
				pass(2 * time.Minute)
				if all := s.all(); all["done"] != partitions*each || len(all) != 1 {
					t.Errorf("tries: %v", all)
				}
				if ends := r.ends(); ends[wholeAnswer] != partitions*(each/2) || ends[partedAnswer] != partitions*(each-each/2) || len(ends) != 2 {
					t.Errorf("ends: %v", ends)
				}
				for p := range int32(partitions) {
					if is := r.committedOf("spread", p); is.base != each || len(is.tries)+len(is.done) > 0 {
						t.Errorf("partition %d: %+v", p, is)
					}
				}
			})
		})
	}
}

// committedOf gives the progress of a partition.
func (r *rig) committedOf(topic string, number int32) progress {
	r.t.Helper()
	is := progress{base: -1}
	coordinators, err := r.client.Coordinators(r.t.Context(), []string{testGroup})
	if err != nil {
		r.t.Fatal(err)
	}
	r.client.Commits(r.t.Context(), coordinators[testGroup], []broker.GroupTopics{{Group: testGroup, Topics: []broker.TopicPartitions{{Topic: topic, Partitions: []int32{number}}}}},
		func(c broker.Committed) {
			if is, err = parseProgress(c.Offset, c.Metadata); err != nil {
				r.t.Fatal(err)
			}
		}, func(_ string, err error) { r.t.Fatal(err) })
	return is
}

// A process with tries that it has handed over dies: who has the partitions then
// tries whole answers again, and ends streams with half an answer. One that is
// merely out of reach for long stops to produce before that.
func TestHandedOverAndGone(t *testing.T) {
	const partitions, each = 12, 6
	for name, thaws := range map[string]bool{"killed": false, "frozen": true} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				s := newSite()
				long := func(o *Options) { o.Concurrency, o.Drain, o.Timeout = 200, 5*time.Minute, 5*time.Minute }
				client, freeze, thaw := r.freezable()
				old := r.deliver(options(s.answer, long), toSpread, func(c *Config) {
					c.Broker, c.Producer = client, &rig{t: t, client: client}
				})
				pass(10 * time.Second)
				r.jobs(partitions, each)
				pass(15 * time.Second)
				if n := s.all()["runs"]; n != partitions*each {
					t.Fatalf("%d tries run", n)
				}
				next := newSite()
				r.deliver(options(next.answer, long), toSpread)
				pass(time.Second)
				left := make(chan struct{})
				go func() { defer close(left); old.Close() }()
				pass(5 * time.Second)
				if n := next.all()["runs"]; n != 0 {
					t.Fatalf("%d tries run twice", n)
				}
				freeze()
				pass(15 * time.Second)
				if n := next.all()["runs"]; n != partitions*each/2 {
					t.Errorf("%d tries run again, want those of whole answers: %d", n, partitions*each/2)
				}
				pass(5 * time.Second)
				if thaws {
					thaw()
				}
				pass(3 * time.Minute)
				if all := next.all(); all["done"] != partitions*each/2 || len(all) != 1 {
					t.Errorf("tries: %v", all)
				}
				const broken = "parts: 200 0.|200 1.|failed after 1: 0 " + cutReason + "|"
				if ends := r.ends(); ends[wholeAnswer] != partitions*each/2 || ends[broken] != partitions*each/2 || len(ends) != 2 {
					t.Errorf("ends: %v", ends)
				}
				if !thaws {
					thaw() // and so let it end
				}
				<-left
			})
		})
	}
}

// freezable is a client that can be cut off for a while, as a process that is
// stopped is.
func (r *rig) freezable() (c *broker.Client, freeze, thaw func()) {
	var mu sync.Mutex
	frozen := false
	var conns []net.Conn
	c = broker.New(broker.Config{Addresses: r.cluster.ListenAddrs(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if frozen {
			return nil, errors.New("frozen")
		}
		conn, err := r.network.DialContext(ctx, network, address)
		if err == nil {
			conns = append(conns, conn)
		}
		return conn, err
	}})
	r.t.Cleanup(c.Close)
	freeze = func() {
		mu.Lock()
		defer mu.Unlock()
		frozen = true
		for _, conn := range conns {
			_ = conn.Close()
		}
	}
	thaw = func() {
		mu.Lock()
		defer mu.Unlock()
		frozen = false
	}
	return c, freeze, thaw
}

// What could not be told of a try that was handed over is not forgotten: its
// partition may come back, and nobody else could say how it has ended.
func TestUntoldOutcomeOfAPartitionThatComesBack(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const partitions, each = 12, 2
		s := newSite()
		long := func(o *Options) { o.Concurrency, o.Drain, o.Timeout = 200, 5*time.Minute, 5*time.Minute }
		r.deliver(options(s.answer, long), toSpread, func(c *Config) { c.Producer = &refusingOutcomes{rig: r} })
		pass(10 * time.Second)
		r.jobs(partitions, each)
		pass(20 * time.Second)
		next := newSite()
		d := r.deliver(options(next.answer, long), toSpread)
		pass(43 * time.Second) // the tries have ended
		if all := s.all(); all["done"] != partitions*each {
			t.Fatalf("tries: %v", all)
		}
		d.Close()
		pass(time.Minute)
		if all := s.all(); all["done"] != partitions*each || len(all) != 1 || len(next.all()) != 0 {
			t.Errorf("tries: %v and %v", all, next.all())
		}
		for p := range int32(partitions) {
			if is := r.committedOf("spread", p); is.base != each || len(is.tries)+len(is.done) > 0 {
				t.Errorf("partition %d: %+v", p, is)
			}
		}
	})
}

// refusingOutcomes is a Producer whose broker refuses outcomes.
type refusingOutcomes struct{ *rig }

func (r *refusingOutcomes) Produce(ctx context.Context, topic string, partition int32, rec record.Record) error {
	if topic == testControl && strings.Contains(string(rec.Value), `"state":"done"`) {
		return ErrRefused
	}
	return r.rig.Produce(ctx, topic, partition, rec)
}

// How a try has ended whose topic was deleted and made again says nothing about the
// record that is at its offset now.
func TestOutcomeOfAnotherLife(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		s := newSite()
		long := func(o *Options) { o.Drain, o.Timeout = 5*time.Minute, 5*time.Minute }
		d := r.deliver(options(s.answer, long))
		pass(10 * time.Second)
		if _, err := r.put(t.Context(), testTopic, 0, r.request("whole-before", "", "x")); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		d.revoke(t.Context(), []int32{0})
		r.topic(1)
		if _, err := r.put(t.Context(), testTopic, 0, r.request("whole-now", "", "x")); err != nil {
			t.Fatal(err)
		}
		r.eventually(func() bool { return s.all()["runs"] == 2 }, func() string { return fmt.Sprint(s.all()) })
		left := make(chan struct{})
		go func() { defer close(left); d.Close() }() // which hands it over by the same name, as the same try
		t.Cleanup(func() { <-left })
		pass(2 * time.Second)
		r.eventually(func() bool { return s.all()["done"] == 1 }, func() string { return fmt.Sprint(s.all()) })
		after := r.deliver(options(s.answer, long))
		pass(2 * time.Second)
		if p := r.committed(); p.base != 0 {
			t.Errorf("committed %+v while the try runs: %v", p, s.all())
		}
		r.done(1)
		if all := s.all(); all["done"] != 2 || len(all) != 1 {
			t.Errorf("tries: %v", all)
		}
		after.Close()
	})
}
