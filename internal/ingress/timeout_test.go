package ingress

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// took runs produce and wants an error of a kind at an exact time.
func (w *world) took(r Request, want error, at time.Duration) {
	w.t.Helper()
	start := time.Now()
	_, err := w.producer.Produce(w.t.Context(), r)
	if !errors.Is(err, want) {
		w.t.Errorf("got %v, want %v", err, want)
	}
	if d := time.Since(start); d != at {
		w.t.Errorf("the answer came after %v, want %v", d, at)
	}
}

func timed(r Request, d time.Duration) Request {
	r.Timeout = d
	return r
}

func TestBrokerDownIsUnavailableAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		w.link.cut() // nothing is known yet
		w.took(timed(order("", "a"), 7*time.Second), ErrUnavailable, 7*time.Second)
		w.took(order("k", "b"), ErrUnavailable, defaultTimeout)
		w.link.heal()
		w.must("k", "c")
		w.link.cut() // the topic is known, and no leader can be dialed
		<-time.After(time.Second)
		w.took(order("k", "d"), ErrUnavailable, defaultTimeout) // the first one meets connections that ended meanwhile
		w.took(order("k", "e"), ErrUnavailable, defaultTimeout)
		w.took(order("", "e"), ErrUnavailable, defaultTimeout)
		w.link.heal()
		w.must("k", "f")
		if got := w.values(); len(got) != 2 {
			t.Errorf("the topic holds %q, want c and f", got)
		}
	})
}

func TestBrokerBackBeforeTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		w.link.cut()
		first, second := w.later(order("k", "a")), w.later(order("", "b"))
		<-time.After(8 * time.Second)
		w.link.heal()
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
	})
}

func TestSilenceIsUnclearAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return silence, 0 })
		w.took(order("k", "b"), ErrUnclear, defaultTimeout)
		// While one try is in flight the next record waits for its partition. It
		// shares the fate of its own batch only.
		w.took(timed(order("k", "c"), time.Second), ErrUnclear, time.Second)
		inFlight := w.later(order("k", "d"))
		<-time.After(2 * time.Second)
		w.took(timed(order("k", "e"), time.Second), ErrUnavailable, time.Second)
		w.link.onRequest(nil)
		if err := <-inFlight; err != nil {
			t.Errorf("a second try after the silence: %v", err)
		}
	})
}

// An error code that keeps coming is as unclear as silence, and the deadline
// falls into the pause between two tries.
func TestUnclearAnswersUntilTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		var healed atomic.Bool
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			return answer(r, kafka.NotLeaderForPartition), nil, !healed.Load()
		})
		w.took(timed(order("k", "b"), 3300*time.Millisecond), ErrUnclear, 3300*time.Millisecond)
		healed.Store(true)
		w.must("k", "c")
	})
}

func TestTooFewReplicasIsUnavailableAtTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		var healed atomic.Bool
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			return answer(r, kafka.NotEnoughReplicas), nil, !healed.Load()
		})
		w.took(order("k", "a"), ErrUnavailable, defaultTimeout)
		waits := w.later(order("", "b"))
		<-time.After(time.Second)
		healed.Store(true)
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}

// A context that ends with the timeout, as the handler gives it, does not hide
// whether the record may be on the topic.
func TestContextDeadlineTellsUnclearFromUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.link.cut()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			start := time.Now()
			_, err := w.producer.Produce(ctx, timed(order("k", "b"), 3*time.Second))
			cancel()
			// What was in flight on the old connection is unclear; afterwards nobody can be dialed.
			if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrUnclear) {
				t.Error(err)
			}
			if d := time.Since(start); d > 3*time.Second+verdictGrace {
				t.Errorf("the answer came after %v", d)
			}
		}
	})
}

// Records that have waited through an outage have little time left. They must
// not drag those into their fate that came a moment ago.
func TestShortOfTimeDoesNotShortenItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return pass, time.Second })
		busy := w.later(order("k", "b"))
		synctest.Wait()
		fresh := w.later(order("k", "d"))
		short := w.later(timed(order("k", "c"), 1500*time.Millisecond))
		start := time.Now()
		if err := <-short; !errors.Is(err, ErrUnclear) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("the one with little time got %v after %v", err, time.Since(start))
		}
		if err := errors.Join(<-busy, <-fresh); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("the batch took until %v, want one call", d)
		}
	})
}

func TestOneTimeoutDoesNotShortenAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, Config{})
		w.link.cut()
		long := make(chan time.Duration, 1)
		start := time.Now()
		go func() {
			_, _ = w.producer.Produce(t.Context(), timed(order("", "long"), 9*time.Second))
			long <- time.Since(start)
		}()
		synctest.Wait()
		w.took(timed(order("", "short"), 2*time.Second), ErrUnavailable, 2*time.Second)
		if d := <-long; d != 9*time.Second {
			t.Errorf("the long one ended after %v", d)
		}
	})
}
