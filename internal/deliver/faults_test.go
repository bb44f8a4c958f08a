package deliver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// producer is the rig's, with a say in what becomes of each record.
type producer struct {
	*rig
	say func(ctx context.Context, topic string, r record.Record) error
}

func (p producer) Produce(ctx context.Context, topic string, partition int32, r record.Record) error {
	if err := p.say(ctx, topic, r); err != nil {
		return err
	}
	return p.rig.Produce(ctx, topic, partition, r)
}

func with(r *rig, say func(ctx context.Context, topic string, r record.Record) error) func(*Config) {
	return func(c *Config) { c.Producer, c.Logger = producer{r, say}, nil }
}

// bad fails always.
func bad(w http.ResponseWriter, _ *http.Request) error {
	w.WriteHeader(http.StatusBadGateway)
	return nil
}

// A dead letter that cannot be produced holds its own key, and no place among
// those that are tried at once.
func TestDeadLetterCannotBeProduced(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var works atomic.Bool
		h := func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "s1" {
				return echo(w, req)
			}
			return bad(w, req)
		}
		r.deliver(options(h, func(o *Options) { o.Concurrency, o.Attempts = 1, 1 }), with(r, func(_ context.Context, topic string, _ record.Record) error {
			if topic == testDead && !works.Load() {
				return errors.New("no such topic")
			}
			return nil
		}))
		r.send(2, keyless)
		r.want("s1", "200 1")
		pass(20 * time.Second)
		if told := r.replies()["s0"]; len(told) > 0 {
			t.Errorf("%v", told)
		}
		works.Store(true)
		r.want("s0", "failed after 1: 502 Bad Gateway")
		r.done(2)
		if dead := r.read(testDead); len(dead) != 1 {
			t.Errorf("%d dead letters", len(dead))
		}
	})
}

// However many there are of them, and however long the broker leaves it open, they
// hold up no other key, though their records are the first in the log.
func TestDeadLettersThatHang(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		h := func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "well" {
				return echo(w, req)
			}
			return bad(w, req)
		}
		var works atomic.Bool
		d := r.deliver(options(h, func(o *Options) { o.Concurrency, o.Attempts = 1, 1 }), with(r, func(ctx context.Context, topic string, _ record.Record) error {
			if topic == testDead && !works.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}))
		const dead = 12
		r.send(dead, keyless)
		pass(2 * time.Minute) // each was given up once
		if _, err := r.put(t.Context(), testTopic, 0, r.request("well", "", "x")); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if told := r.replies()["well"]; !slices.Equal(told, []string{"200 x"}) {
			t.Errorf("%q", told)
		}
		works.Store(true)
		r.done(dead + 1)
		if l := d.Load(); l.Running != 0 || l.Keys != 0 {
			t.Errorf("%+v", l)
		}
	})
}

// A dead letter that is too large with what it says besides goes without, and a
// reason is not longer than anybody reads.
func TestDeadLetterIsTooLarge(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		reasons := make(chan int, 1)
		h := func(http.ResponseWriter, *http.Request) error { return errors.New(strings.Repeat("é", maxReason)) }
		r.deliver(options(h, func(o *Options) { o.Attempts = 1 }), with(r, func(_ context.Context, topic string, rec record.Record) error {
			if reason, ok := rec.Header(HeaderDeadReason); ok && topic == testDead {
				reasons <- len(reason)
				return fmt.Errorf("produce: %w", ErrTooLarge)
			}
			return nil
		}))
		r.send(1, keyless)
		r.done(1)
		if n, dead := <-reasons, r.read(testDead); n != maxReason || len(dead) != 1 || string(dead[0].Value) != "0" {
			t.Errorf("a reason of %d bytes, %+v", n, dead)
		}
	})
}

// A request that was given up is not tried again by who comes next, although
// there was no time for its dead letter.
func TestGivenUpStaysSo(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		h := func(w http.ResponseWriter, _ *http.Request) error {
			tries.Add(1)
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			pass(2 * flushGrace)
			return errors.New("upstream gone")
		}
		d := r.deliver(options(h), with(r, func(_ context.Context, topic string, _ record.Record) error {
			if topic == testDead {
				return errors.New("no such topic")
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "part 200 half")
		pass(time.Second)
		d.Close()
		if p := r.committed().past(0); !p.givenUp || p.failed != 1 || p.started {
			t.Errorf("%+v", p)
		}
		r.deliver(options(h))
		r.want("s0", "part 200 half", "failed after 1: 200 upstream gone")
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries", n)
		}
	})
}

// A reply that the broker does not take is not the upstream's fault, nor is an exit
// that does not wait for it: however often that happens, the request is tried again.
func TestReplyCannotBeProduced(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var works atomic.Bool
		var tries tally
		unsent := with(r, func(_ context.Context, topic string, rec record.Record) error {
			if _, ok := rec.Header(record.HeaderStatus); ok && topic == testReplies && !works.Load() {
				return errors.New("no leader")
			}
			return nil
		})
		const exits = maxCuts + 2
		for i := range int64(exits) {
			d := r.deliver(options(tries.counted, func(o *Options) { o.Attempts = 1 }), unsent)
			if i == 0 {
				r.send(1, keyless)
			}
			r.eventually(func() bool { return tries.of("s0") == i+1 }, func() string { return "no try" })
			pass(time.Minute)
			d.Close()
		}
		works.Store(true)
		r.deliver(options(tries.counted, func(o *Options) { o.Attempts = 1 }), unsent)
		r.want("s0", "200 0")
		r.done(1)
		if n := tries.of("s0"); n != exits+1 {
			t.Errorf("%d tries", n)
		}
	})
}

// An answer that the broker will never take is not asked for again, also where
// answers that were begun are.
func TestReplyIsTooLarge(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		r.deliver(options(tries.counted, func(o *Options) { o.RetryStarted = true }), with(r, func(_ context.Context, topic string, rec record.Record) error {
			if _, ok := rec.Header(record.HeaderStatus); ok && topic == testReplies {
				return ErrTooLarge
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "failed after 1: 200 the broker takes no record of the answer's size; raise max.message.bytes of the reply topic, or have the site send smaller headers")
		if n := tries.of("s0"); n != 1 {
			t.Errorf("%d tries", n)
		}
	})
}

// A member that the coordinator does not know any more joins again, and goes on
// with its tries if nobody else has had the partition.
func TestCoordinatorForgetsTheMember(t *testing.T) {
	for name, key := range map[string]kmsg.Key{"heartbeat": kmsg.Heartbeat, "commit": kmsg.OffsetCommit} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				var code atomic.Int64
				r.refuse(key, &code, func(req kmsg.Request, code int16) kmsg.Response {
					if beat, ok := req.ResponseKind().(*kmsg.HeartbeatResponse); ok {
						beat.ErrorCode = code
						return beat
					}
					answer := req.ResponseKind().(*kmsg.OffsetCommitResponse)
					for _, topic := range req.(*kmsg.OffsetCommitRequest).Topics {
						at := kmsg.NewOffsetCommitResponseTopic()
						at.Topic, at.TopicID = topic.Topic, topic.TopicID
						for _, p := range topic.Partitions {
							ap := kmsg.NewOffsetCommitResponseTopicPartition()
							ap.Partition, ap.ErrorCode = p.Partition, code
							at.Partitions = append(at.Partitions, ap)
						}
						answer.Topics = append(answer.Topics, at)
					}
					return answer
				})
				var tries tally
				release := make(chan struct{})
				r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
					if tries.add(req); req.Header.Get(HeaderStreamID) == "s0" {
						select {
						case <-release:
						case <-req.Context().Done():
							return req.Context().Err()
						}
					}
					return echo(w, req)
				}), func(c *Config) { c.Logger = nil })
				r.send(1, keyless)
				r.eventually(func() bool { return tries.of("s0") == 1 }, func() string { return "no try" })
				code.Store(int64(kafka.UnknownMemberId))
				if _, err := r.put(t.Context(), testTopic, 0, r.request("s1", "", "1")); err != nil { // something to commit
					t.Fatal(err)
				}
				pass(5 * time.Second)
				close(release)
				code.Store(0)
				r.done(2)
				if n := tries.of("s0"); n != 1 || tries.of("s1") == 0 {
					t.Errorf("%d tries", n)
				}
				r.want("s0", "delivering 1: 0 ", "200 0")
			})
		})
	}
}

// Where the group stands is asked for until the coordinator says it.
func TestCoordinatorIsLoading(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var code atomic.Int64
		code.Store(int64(kafka.GroupLoadInProgress))
		r.refuse(kmsg.OffsetFetch, &code, func(req kmsg.Request, code int16) kmsg.Response {
			answer := req.ResponseKind().(*kmsg.OffsetFetchResponse)
			answer.ErrorCode = code
			for _, group := range req.(*kmsg.OffsetFetchRequest).Groups {
				g := kmsg.NewOffsetFetchResponseGroup()
				g.Group, g.ErrorCode = group.Group, code
				answer.Groups = append(answer.Groups, g)
			}
			return answer
		})
		r.deliver(options(echo))
		r.send(1, keyless)
		pass(20 * time.Second)
		if told := r.replies(); len(told) > 0 {
			t.Errorf("%v", told)
		}
		code.Store(0)
		r.want("s0", "200 0")
	})
}

// A handler that does not mind its context holds up neither the end nor the
// count.
func TestHandlerThatDoesNotEnd(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		d := r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			<-release
			return echo(w, req)
		}), func(c *Config) { c.Logger = nil })
		r.send(1, keyless)
		r.want("s0", "delivering 1: 0 ")
		begun := time.Now()
		d.Close()
		if took := time.Since(begun); took > leaveTimeout+lastTry {
			t.Errorf("it took %s", took)
		}
		if e := r.committed().past(0); e.by == (run{}) {
			t.Errorf("%+v is committed", e)
		}
		var tries tally
		r.deliver(options(tries.counted))
		r.want("s0", "delivering 1: 0 ", "200 0")
		close(release)
		pass(time.Minute)
		if told := r.replies()["s0"]; len(told) != 2 || tries.of("s0") != 1 {
			t.Errorf("%v", told)
		}
	})
}

// Options change from one try to the next.
func TestUse(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		var at, most atomic.Int64
		h := func(name string) handlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) error {
				most.Store(max(most.Load(), at.Add(1)))
				defer at.Add(-1)
				<-release
				_, err := io.WriteString(w, name)
				return err
			}
		}
		o := func(name string, n int) Options {
			return options(h(name), func(o *Options) { o.Concurrency = n })
		}
		d := r.deliver(o("first", 1))
		d.Use(o("first", 1))
		r.send(4, keyless)
		r.want("s0", "delivering 1: 0 ")
		d.Use(o("second", 3))
		r.want("s2", "delivering 1: 0 ")
		close(release)
		r.done(4)
		told := r.replies()
		if most.Load() != 3 || told["s0"][1] != "200 first" || told["s1"][1] != "200 second" || told["s3"][0] != "200 second" {
			t.Errorf("%d at once: %v", most.Load(), told)
		}
	})
}

// A handler that panics has failed, as a 500 would have; one that aborts has no
// status.
func TestPanics(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			w.(http.Flusher).Flush() //nolint:forbidigo // as handlers of others may; there is nothing to send
			switch req.Header.Get(HeaderStreamID) {
			case "s0":
				panic("oh")
			case "s1":
				panic(http.ErrAbortHandler)
			}
			return &Failure{Code: http.StatusBadGateway, Err: errors.New("no route")}
		}, func(o *Options) { o.Attempts = 1 }), func(c *Config) { c.Logger = nil })
		r.send(3, keyless)
		r.want("s0", "failed after 1: 500 handler panicked: oh")
		r.want("s1", "failed after 1: 200 "+errAborted.Error())
		r.want("s2", "failed after 1: 502 no route")
	})
}

// A group without a name is a mistake that is told, and nothing else happens.
func TestGroupCannotBeJoined(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		d := r.deliver(options(echo), func(c *Config) { c.Group, c.Control, c.Logger = "", "", nil })
		pass(time.Minute)
		d.Close()
	})
}

// A request that has expired before another try is given up.
func TestExpiresBeforeTheNextTry(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		soon := r.request("s0", "", "x")
		for i, header := range soon.Headers {
			if header.Key == record.HeaderExpires {
				soon.Headers[i].Value = fmt.Append(nil, time.Now().Add(10*time.Second).UnixMilli())
			}
		}
		if _, err := r.put(t.Context(), testTopic, 0, soon); err != nil {
			t.Fatal(err)
		}
		wait := func(o *Options) { o.BackoffMin, o.BackoffMax = 6*time.Second, 6*time.Second }
		d := r.deliver(options(bad, wait))
		r.want("s0", "retrying 1: 502 Bad Gateway")
		d.Close()
		pass(time.Minute)
		r.deliver(options(bad, wait))
		r.want("s0", "retrying 1: 502 Bad Gateway", "failed after 1: 0 expired before it could be tried again")
	})
}

// The control topic may be made anew, and lose what is old.
func TestControlTopicMovesOn(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		r.deliver(options(tries.counted))
		r.cancel("gone")
		pass(5 * time.Second)
		if err := r.cluster.DeleteTopic(testControl); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if err := r.cluster.CreateTopic(testControl, 1, nil); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second) // the test's own client has heard of it
		r.cancel("s0")
		if err := r.cluster.DeleteRecords(testControl, 0, 1); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		r.send(2, keyless)
		r.done(2)
		if tries.of("s0") != 0 || tries.of("s1") != 1 {
			t.Errorf("%d %d", tries.of("s0"), tries.of("s1"))
		}
	})
}

// A request is replayed as it was, as far as it was told.
func TestReplay(t *testing.T) {
	for _, test := range []struct {
		request record.Request
		remote  string
		tls     string
	}{
		{record.Request{Method: "PUT", Path: "/a%2Fb?c", Scheme: "https", Authority: "example.com", Body: []byte("x"), Forwarded: record.Forwarded{For: "2001:db8::1"}}, "[2001:db8::1]:0", "example.com"},
		{record.Request{Method: "POST", Path: "/", Scheme: "http", Authority: "example.com:80", Forwarded: record.Forwarded{For: "unknown"}}, "0.0.0.0:0", ""},
	} {
		r, err := replay(t.Context(), test.request, 2)
		if err != nil {
			t.Fatal(err)
		}
		if r.RemoteAddr != test.remote || r.URL.String() != test.request.Path || r.ContentLength != int64(len(test.request.Body)) ||
			r.Header.Get(HeaderAttempt) != "2" || r.Header.Get(HeaderStreamID) != "" || nameOf(r.TLS) != test.tls {
			t.Errorf("%+v", r)
		}
	}
	if _, err := replay(t.Context(), record.Request{Method: "POST", Path: "no path"}, 1); err == nil {
		t.Error("a path that is none")
	}
}

func nameOf(state *tls.ConnectionState) string {
	if state == nil {
		return ""
	}
	return state.ServerName
}
