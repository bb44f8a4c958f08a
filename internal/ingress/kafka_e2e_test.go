//go:build e2e

package ingress

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// realWorld is a producer for "orders" on a real Kafka.
func realWorld(t *testing.T, cluster *kafkatest.Cluster, partitions int) *world {
	t.Helper()
	w := &world{t: t}
	w.link.real = true
	w.client = broker.New(broker.Config{Addresses: cluster.Addresses(), Dial: w.link.dial})
	t.Cleanup(w.client.Close)
	w.recreate(partitions)
	w.producer = New(Config{Broker: w.client, Logger: zap.NewNop()})
	t.Cleanup(w.producer.Close)
	return w
}

// recreate makes "orders" anew.
func (w *world) recreate(partitions int) {
	w.t.Helper()
	deleted, err := w.client.API().DeleteTopics(w.t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{"orders"}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := deleted.Errors["orders"]; err == nil {
		// Deletion goes on after the answer.
		for {
			if _, err := w.client.Topic(w.t.Context(), "orders"); errors.Is(err, kafka.UnknownTopicOrPartition) {
				break
			}
		}
	}
	if _, err := w.client.Ensure(w.t.Context(), broker.TopicSpec{Name: "orders", Partitions: partitions}); err != nil {
		w.t.Fatal(err)
	}
}

func TestRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})

	// First, while the coordinators of the fresh cluster are not there yet.
	t.Run("each accepted record once and in order", func(t *testing.T) {
		w := realWorld(t, cluster, 8)
		s := &storm{rng: rand.New(rand.NewPCG(1, 1))}
		verify(t, w, weather(t, w, s, cluster.Addresses()[0], 4_000))
	})

	t.Run("late batch of the old epoch is refused", func(t *testing.T) {
		w := realWorld(t, cluster, 1)
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return overtaken, 0 })
		if _, err := w.producer.Produce(t.Context(), timed(order("k", "late"), time.Second)); !errors.Is(err, ErrUnclear) {
			t.Errorf("got %v, want %v", err, ErrUnclear)
		}
		w.link.onRequest(nil)
		w.must("k", "b")
		kept := w.link.take()
		if len(kept) == 0 {
			t.Fatal("the link kept no request")
		}
		for _, request := range kept {
			if _, err := w.link.deliver(cluster.Addresses()[0], request); err != nil {
				t.Fatal(err)
			}
		}
		w.must("k", "c")
		if got, want := w.values(), []string{"a", "b", "c"}; !slices.Equal(got, want) {
			t.Errorf("the topic holds %q, want %q", got, want)
		}
	})

	t.Run("lost answer", func(t *testing.T) {
		w := realWorld(t, cluster, 1)
		w.must("k", "a")
		w.link.once(loseAnswer)
		if ack := w.must("k", "b"); ack.Offset != 1 {
			t.Errorf("told offset %d, want 1", ack.Offset)
		}
		if got := w.values(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the topic holds %q", got)
		}
	})

	t.Run("recreated topic", func(t *testing.T) {
		w := realWorld(t, cluster, 4)
		before := w.must("k", "a")
		w.recreate(2)
		after := w.must("k", "b")
		if after.Incarnation == before.Incarnation || after.Offset != 0 || after.Partition >= 2 {
			t.Errorf("%+v before and %+v after", before, after)
		}
	})

	t.Run("too large", func(t *testing.T) {
		w := realWorld(t, cluster, 1)
		w.must("k", "a")
		if _, err := w.produce("k", string(make([]byte, 1_200_000))); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %.200v, want %v", err, ErrTooLarge)
		}
		w.must("k", "b")
	})

	t.Run("stop and start", func(t *testing.T) {
		w := realWorld(t, cluster, 4)
		w.must("k", "a")
		cluster.Stop()
		start := time.Now()
		_, err := w.producer.Produce(t.Context(), timed(order("k", "b"), 2*time.Second))
		if !errors.Is(err, ErrUnclear) && !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if _, err := w.producer.Produce(t.Context(), timed(order("k", "c"), 2*time.Second)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want %v", err, ErrUnavailable)
		}
		if d := time.Since(start); d > 6*time.Second {
			t.Errorf("two answers took %v", d)
		}
		cluster.Restart()
		if _, err := w.producer.Produce(t.Context(), timed(order("k", "d"), 30*time.Second)); err != nil {
			t.Error(err)
		}
	})
}

// Brokers are killed one after the other under load. What was accepted is
// there once and in order, and few are left in the dark.
func TestRealKafkaLosesBrokers(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	w := realWorld(t, cluster, 6)
	outcomes := make(map[string]outcome)
	var mu sync.Mutex
	var all sync.WaitGroup
	stop := make(chan struct{})
	for k := range 24 {
		all.Go(func() {
			key := ""
			if k%4 > 0 {
				key = fmt.Sprintf("key-%d", k)
			}
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				value := fmt.Sprintf("%d:%d", k, i)
				ack, err := w.produce(key, value)
				mu.Lock()
				outcomes[value] = outcome{ack, err}
				mu.Unlock()
			}
		})
	}
	for i := range 3 {
		cluster.Kill(i)
		cluster.Restart(i)
	}
	close(stop)
	all.Wait()
	verify(t, w, outcomes)
}
