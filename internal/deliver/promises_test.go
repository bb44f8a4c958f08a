package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Half an answer whose rest could not be sent before the partition went is not begun
// again.
func TestRestOfAnAnswerUnsent(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		var works atomic.Bool
		h := func(w http.ResponseWriter, req *http.Request) error {
			tries.Add(1)
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			pass(2 * flushGrace)
			_, _ = io.WriteString(w, "!!")
			return nil
		}
		d := r.deliver(options(h), with(r, func(_ context.Context, topic string, rec record.Record) error {
			part, _ := rec.Header(record.HeaderPart)
			if topic == testReplies && string(part) == "2" && !works.Load() {
				return errors.New("no leader")
			}
			return nil
		}))
		r.send(1, keyless)
		r.want("s0", "part 200 half")
		pass(time.Second)
		d.Close()
		works.Store(true)
		r.deliver(options(h))
		r.done(1)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries, told %q", n, r.replies()["s0"])
		}
	})
}

// Nor is that of a handler that does not end when it is cancelled.
func TestHalfAnAnswerThatDoesNotEnd(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		var tries atomic.Int64
		h := func(w http.ResponseWriter, req *http.Request) error {
			n := tries.Add(1)
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			if n == 1 {
				<-release
			}
			return nil
		}
		d := r.deliver(options(h), func(c *Config) { c.Logger = nil })
		r.send(1, keyless)
		r.want("s0", "part 200 half")
		pass(time.Second)
		d.Close()
		close(release)
		r.deliver(options(h))
		r.done(1)
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries, told %q", n, r.replies()["s0"])
		}
	})
}

// A handler's error that no other try would change is an answer.
func TestErrorThatIsAnAnswer(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			tries.Add(1)
			return &Failure{Code: http.StatusNotFound, Err: errors.New("no such file")}
		}))
		r.send(1, keyless)
		r.done(1)
		if n, told := tries.Load(), r.replies()["s0"]; n != 1 || fmt.Sprint(told) != "[404 ]" || len(r.read(testDead)) > 0 {
			t.Errorf("%d tries, told %q", n, told)
		}
	})
}

func expireNow(rec record.Record) record.Record {
	for i, h := range rec.Headers {
		if h.Key == record.HeaderExpires {
			rec.Headers[i].Value = fmt.Append(nil, time.Now().UnixMilli())
		}
	}
	return rec
}

// A dead letter that was put back is tried although nobody waits any more.
func TestReplayAfterExpiry(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		r.deliver(options(tries.counted))
		rec := expireNow(r.request("s0", "", "x"))
		rec.Headers = append(rec.Headers, record.Header{Key: headerReplay, Value: []byte("1")})
		if _, err := r.put(t.Context(), testTopic, 0, rec, expireNow(r.request("s1", "", "x"))); err != nil {
			t.Fatal(err)
		}
		r.done(2)
		if tries.of("s0") != 1 || tries.of("s1") != 0 {
			t.Errorf("%d tries of the replay, %d of what expired", tries.of("s0"), tries.of("s1"))
		}
	})
}

// A commit that is refused for good holds up what failed, and somebody is told.
func TestCommitRefusedForGood(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		core, logs := observer.New(zap.InfoLevel)
		var code atomic.Int64
		r.refuse(kmsg.OffsetCommit, &code, func(req kmsg.Request, code int16) kmsg.Response {
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
		var tries atomic.Int64
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "first" {
				return nil
			}
			tries.Add(1)
			return bad(w, req)
		}, func(o *Options) { o.Concurrency = 2 }), func(c *Config) { c.Logger = zap.New(core) })
		if _, err := r.put(t.Context(), testTopic, 0, r.request("first", "", "")); err != nil {
			t.Fatal(err)
		}
		r.done(1)
		code.Store(12) // OffsetMetadataTooLarge
		r.send(5, keyless)
		pass(10 * time.Minute)
		if n := logs.FilterMessageSnippet("progress cannot be committed").Len(); n != 1 || tries.Load() != 2*2 {
			t.Errorf("told %d times, %d tries", n, tries.Load())
		}
		code.Store(0)
	})
}

// A cancelled request that waits to be tried again does not hold its key.
func TestCancelWhileParked(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "s0" {
				w.Header().Set("Retry-After", "3000")
				return bad(w, req)
			}
			return echo(w, req)
		}))
		r.send(2, func(int) string { return "k" })
		r.want("s0", "retrying 1: 502 Bad Gateway")
		begun := time.Now()
		r.cancel("s0")
		for len(r.replies()["s1"]) == 0 && time.Since(begun) < 2*time.Hour {
			pass(10 * time.Second)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("the next of its key was done after %s", took)
		}
	})
}

// A stuck key with large records does not hold up its partition while there is room.
func TestStuckKeyWithLargeRecords(t *testing.T) {
	q := newQueue(10, 64<<20, func(*job) {}, func() {})
	for n := range int32(32) {
		q.assign(n, progress{}, newWindow(0), false)
	}
	var recs []broker.Record
	for i := range int64(3) {
		recs = append(recs, broker.Record{Offset: i, Record: record.Record{Key: []byte("stuck"), Value: make([]byte, 700<<10)}})
	}
	q.put(0, recs, 3)
	if _, ok := q.wanted(0); !ok {
		t.Error("no more is read")
	}
}

// What is known of a partition goes when the partition does.
func TestWindowsOfOthers(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		if err := r.cluster.CreateTopic(testTopic, 4, nil); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		a := r.deliver(options(echo))
		pass(30 * time.Second)
		r.deliver(options(echo))
		pass(30 * time.Second)
		a.windows.mu.Lock()
		defer a.windows.mu.Unlock()
		if len(a.windows.of) != 2 {
			t.Errorf("%d windows for two partitions", len(a.windows.of))
		}
	})
}

// Who waits for an answer to a request that cannot be read is told.
func TestUnreadableRequest(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(echo))
		rec := r.request("s0", "", "x")
		for i, h := range rec.Headers {
			if strings.Contains(h.Key, "method") {
				rec.Headers[i].Value = []byte("NO METHOD")
			}
		}
		if _, err := r.put(t.Context(), testTopic, 0, rec); err != nil {
			t.Fatal(err)
		}
		r.done(1)
		if told := r.replies()["s0"]; len(told) != 1 || !strings.HasPrefix(told[0], "failed after 0: 0 ") || len(r.read(testDead)) != 1 {
			t.Errorf("%q", told)
		}
	})
}

// A try that ends late leaves its successor to be called off.
func TestLateTryAndItsSuccessor(t *testing.T) {
	c := newControl()
	old := c.underWay("s0", func() {})
	called := false
	c.underWay("s0", func() { called = true })
	old()
	c.take(Cancellation{Cancel: "s0", Expires: time.Now().Add(time.Hour).UnixMilli()}, time.Now())
	if !called {
		t.Error("not called off")
	}
}
