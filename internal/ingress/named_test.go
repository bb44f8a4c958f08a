package ingress

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// named is an order for a partition, with a key that may belong to another.
func named(partition int32, key string) Request {
	r := order(key, "x")
	r.Partition = &partition
	return r
}

func TestNamedPartitionComesBeforeTheKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, Config{})
		for p := range int32(4) {
			for _, key := range []string{"", "k"} {
				r := named(p, key)
				r.PlaceBy = []byte("stream")
				if ack, err := w.producer.Produce(t.Context(), r); err != nil || ack.Partition != p {
					t.Errorf("went to partition %d, want %d: %v", ack.Partition, p, err)
				}
			}
		}
		for _, s := range w.read("orders") {
			if s.key != "" && s.key != "k" {
				t.Errorf("a record with key %q", s.key)
			}
		}
	})
}

// Nothing waits for a partition that a broker says is not there.
func TestNamedPartitionThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{MaxQueue: 1})
		for range 2 { // while the topic is not known, and then
			for _, p := range []int32{2, 1 << 30, -1} {
				w.took(named(p, "k"), ErrRefused, 0)
			}
			w.must("k", "another") // the queue is empty again
		}
		if _, err := w.producer.Produce(t.Context(), named(2, "k")); !errors.Is(err, kafka.UnknownTopicOrPartition) {
			t.Errorf("%v does not say why", err)
		}
		w.remake(1)
		w.took(named(1, "k"), ErrRefused, 0)
	})
}

// The topic may have grown since it was looked up.
func TestNamedPartitionThatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.grow(3)
		if ack, err := w.producer.Produce(t.Context(), named(2, "k")); err != nil || ack.Partition != 2 {
			t.Errorf("went to partition %d, %v", ack.Partition, err)
		}
		w.grow(4)
		w.link.onRequest(func() (fate, time.Duration) { return pass, time.Second })
		busy := w.later(order("k", "in flight")) // so that the change is put off
		synctest.Wait()
		w.link.onRequest(nil)
		waits := w.later(named(3, "k"))
		w.took(timed(named(4, "k"), 4*time.Second), ErrRefused, time.Second)
		if err := errors.Join(<-busy, <-waits); err != nil {
			t.Error(err)
		}
	})
}

// While no broker tells how many partitions there are, the record waits, up to
// its own time.
func TestNamedPartitionWhileNobodyTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.grow(2)
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Count: 4})
		waits := w.later(named(1, "k"))
		synctest.Wait()
		w.must("k", "is not held up")
		if err := <-waits; err != nil {
			t.Error(err)
		}
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Count: -1})
		w.took(timed(named(2, "k"), 2*time.Second), ErrUnavailable, 2*time.Second)
	})
}
