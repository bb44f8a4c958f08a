package ingress

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// together queues values while the only partition is busy, so that they travel
// in one batch, and gives the outcome of each.
func (w *world) together(values ...string) map[string]error {
	w.t.Helper()
	w.must("k", "before")
	w.link.onRequest(func() (fate, time.Duration) { return pass, time.Second })
	busy := w.later(order("k", "busy"))
	synctest.Wait()
	w.link.onRequest(nil)
	pending := make(map[string]<-chan error)
	for _, v := range values {
		pending[v] = w.later(order("k", v))
	}
	if err := <-busy; err != nil {
		w.t.Fatal(err)
	}
	got := make(map[string]error)
	for v, done := range pending {
		got[v] = <-done
	}
	return got
}

func TestTooLargeTogetherIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{}, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "5000"}))
		var values []string
		for i := range 40 {
			values = append(values, fmt.Sprintf("%02d", i)+strings.Repeat("x", 500))
		}
		huge := strings.Repeat("y", 5000)
		for v, err := range w.together(append(values, huge)...) {
			if v == huge && !errors.Is(err, ErrTooLarge) {
				t.Errorf("the huge one got %v, want %v", err, ErrTooLarge)
			}
			if v != huge && err != nil {
				t.Error(err)
			}
		}
		if got := len(w.values()); got != 42 {
			t.Errorf("the topic holds %d records, want 42", got)
		}
	})
}

// Once a topic takes larger batches again they become larger again.
func TestBatchesGrowAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		var limit, calls atomic.Int64
		limit.Store(2000)
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			calls.Add(1)
			if int64(len(r.Topics[0].Partitions[0].Records)) > limit.Load() {
				return answer(r, kafka.MessageSizeTooLarge), nil, true
			}
			return nil, nil, false
		})
		var values []string
		for i := range 40 {
			values = append(values, fmt.Sprintf("%02d", i)+strings.Repeat("x", 500))
		}
		burst := func() int64 {
			before := calls.Load()
			for v, err := range w.together(values...) {
				if err != nil {
					t.Errorf("%.2s: %v", v, err)
				}
			}
			return calls.Load() - before
		}
		if n := burst(); n < 10 {
			t.Errorf("%d calls for twenty times what a batch may hold", n)
		}
		limit.Store(1 << 20)
		for range 10 {
			<-time.After(refreshEvery + time.Second)
			w.must("k", "finds out")
			synctest.Wait()
		}
		if n := burst(); n != 3 {
			t.Errorf("%d calls, want two before the burst and one for all of it", n)
		}
	})
}

func TestTooLargeForTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{MaxQueueBytes: 1000})
		w.took(order("k", strings.Repeat("x", 1000)), ErrTooLarge, 0)
	})
}

// A record larger than a batch may be goes alone, for the topic may take it.
func TestLargeRecordGoesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{}, kfake.BrokerConfigs(map[string]string{"message.max.bytes": "3000000"}))
		for v, err := range w.together("small", strings.Repeat("x", 2_000_000), "small too") {
			if err != nil {
				t.Errorf("%.10s: %v", v, err)
			}
		}
	})
}

// invalidRecords refuses batches that contain a record whose value begins with "bad".
func invalidRecords(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
	for _, p := range r.Topics[0].Partitions {
		if strings.Contains(string(p.Records), "bad") {
			return answer(r, kafka.InvalidRecord), nil, true
		}
	}
	return nil, nil, false
}

func TestInvalidRecordIsFoundOutAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.onProduce(invalidRecords)
		var values []string
		for i := range 60 {
			values = append(values, fmt.Sprintf("good %d", i))
			if i%25 == 7 {
				values = append(values, fmt.Sprintf("bad %d", i))
			}
		}
		for v, err := range w.together(values...) {
			bad := strings.HasPrefix(v, "bad")
			if bad && (!errors.Is(err, ErrRefused) || !errors.Is(err, kafka.InvalidRecord)) {
				t.Errorf("%q got %v, want %v", v, err, ErrRefused)
			}
			if !bad && err != nil {
				t.Errorf("%q got %v", v, err)
			}
		}
		if got := len(w.values()); got != 62 {
			t.Errorf("the topic holds %d records, want 62", got)
		}
	})
}

func TestFinalRefusals(t *testing.T) {
	for _, code := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.PolicyViolation, kerr.UnsupportedForMessageFormat, kerr.InvalidTimestamp, kerr.CorruptMessage} {
		t.Run(code.Message, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, Config{})
				w.must("k", "a")
				w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: code})
				w.took(order("k", "b"), ErrRefused, 0)
				w.must("k", "c")
				if got := w.values(); !slices.Equal(got, []string{"a", "c"}) {
					t.Errorf("the topic holds %q", got)
				}
			})
		})
	}
}

func TestRefusalAfterAnUnclearTryIsUnclear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend}, kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed})
		if _, err := w.produce("k", "b"); !errors.Is(err, ErrUnclear) {
			t.Errorf("got %v, want %v", err, ErrUnclear)
		}
		w.must("k", "c")
		if got := w.values(); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("the topic holds %q", got)
		}
	})
}

func TestTopicMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		r := order("k", "a")
		r.Topic = "nowhere"
		w.took(r, ErrTopicMissing, 0)
		if err := w.CreateTopic("nowhere", 2, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.producer.Produce(t.Context(), r); err != nil {
			t.Error(err)
		}
	})
}

func TestTopicIsCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var client atomic.Pointer[broker.Client]
		w := newWorld(t, 1, Config{Ensure: func(ctx context.Context, topic string) (broker.Topic, error) {
			return client.Load().Ensure(ctx, broker.TopicSpec{Name: topic, Partitions: 3})
		}})
		client.Store(w.client)
		r := order("k", "a")
		r.Topic = "new"
		if _, err := w.producer.Produce(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if info, err := w.client.Topic(t.Context(), "new"); err != nil || info.Partitions() != 3 {
			t.Errorf("got %+v, %v", info, err)
		}
	})
}

func TestTopicMayNotBeCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{Ensure: func(context.Context, string) (broker.Topic, error) {
			return broker.Topic{}, fmt.Errorf("create topic: %w", kafka.TopicAuthorizationFailed)
		}})
		w.took(order("k", "a"), ErrRefused, 0)
	})
}

func TestTopicDeletedUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		w.must("k", "a")
		if err := w.DeleteTopic("orders"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := w.produce("k", "b"); !errors.Is(err, ErrTopicMissing) {
				t.Errorf("got %v, want %v", err, ErrTopicMissing)
			}
		}
	})
}

// A recreated topic may have other partitions. What waits is placed anew, and
// the acks name the new incarnation.
func TestTopicRecreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		before := w.must("k", "a")
		for _, n := range []int32{5, 1} {
			if err := w.DeleteTopic("orders"); err != nil {
				t.Fatal(err)
			}
			if err := w.CreateTopic("orders", n, nil); err != nil {
				t.Fatal(err)
			}
			var all []<-chan error
			for i := range 20 {
				key := ""
				if i%2 == 0 {
					key = fmt.Sprintf("key %d", i)
				}
				all = append(all, w.later(order(key, "b")))
			}
			for _, done := range all {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			after := w.must("k", "c")
			info, err := w.client.Topic(t.Context(), "orders")
			if err != nil {
				t.Fatal(err)
			}
			if after.Incarnation == before.Incarnation || after.Incarnation != info.ID.Incarnation() {
				t.Errorf("incarnation %x before, %x after, the topic's is %x", before.Incarnation, after.Incarnation, info.ID.Incarnation())
			}
			if got := len(w.values()); got != 21 {
				t.Errorf("the new topic holds %d records, want 21", got)
			}
			before = after
		}
	})
}

// Kafka refuses to make a topic of three copies while one of three brokers
// restarts. The record waits for it, as for a partition without a leader.
func TestTooFewBrokersForTheReplicationWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var client atomic.Pointer[broker.Client]
		w := newWorld(t, 1, Config{Ensure: func(ctx context.Context, topic string) (broker.Topic, error) {
			return client.Load().Ensure(ctx, broker.TopicSpec{Name: topic, Partitions: 1, Replication: 3})
		}}, three()...)
		client.Store(w.client)
		var up atomic.Bool
		w.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			if up.Load() {
				return nil, nil, false
			}
			a := r.ResponseKind().(*kmsg.CreateTopicsResponse)
			at := kmsg.NewCreateTopicsResponseTopic()
			at.Topic, at.ErrorCode = "new", kerr.InvalidReplicationFactor.Code
			a.Topics = append(a.Topics, at)
			return a, nil, true
		})
		r := order("k", "a")
		r.Topic = "new"
		waits := w.later(r)
		w.took(timed(r, time.Second), ErrUnavailable, time.Second)
		if _, err := w.producer.Produce(t.Context(), timed(r, time.Second)); !errors.Is(err, kafka.InvalidReplicationFactor) {
			t.Errorf("%v does not say why", err)
		}
		up.Store(true)
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}

// Whatever the error is, it names the topic, and what is known of the cause.
func TestErrorsNameTopicAndCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{MaxQueue: 1})
		w.link.cut()
		waits := w.later(order("k", "a"))
		<-time.After(time.Second)
		_, full := w.produce("k", "b")
		w.producer.Close()
		for want, err := range map[error]error{ErrFull: full, ErrClosed: <-waits} {
			if !errors.Is(err, want) || !strings.Contains(err.Error(), `topic "orders"`) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{MaxQueue: 3, MaxQueueBytes: 500}, kfake.SeedTopics(1, "other"))
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return pass, time.Second })
		var all []<-chan error
		for range 3 {
			all = append(all, w.later(order("k", "b")))
		}
		synctest.Wait()
		w.took(order("k", "c"), ErrFull, 0)
		w.took(order("", "d"), ErrFull, 0)
		other := order("k", "e")
		other.Topic = "other"
		all = append(all, w.later(other))
		for _, done := range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		first := w.later(order("k", strings.Repeat("x", 300)))
		synctest.Wait()
		w.took(order("k", strings.Repeat("x", 300)), ErrFull, 0)
		if err := <-first; err != nil {
			t.Error(err)
		}
		w.must("k", "f") // and all room is there again
	})
}
