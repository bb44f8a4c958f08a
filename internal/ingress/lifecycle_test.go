package ingress

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A client that goes away while its record waits takes it back; one whose
// record is in flight leaves it there. Neither disturbs the others.
func TestCallersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{MaxQueue: 4})
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return pass, time.Second })
		ctx, cancel := context.WithCancel(t.Context())
		leaving := func(value string) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := w.producer.Produce(ctx, order("k", value))
				done <- err
			}()
			synctest.Wait()
			return done
		}
		inFlight, waits := leaving("in flight"), leaving("waits")
		stays := w.later(order("k", "stays"))
		synctest.Wait()
		cancel()
		start := time.Now()
		if err := <-inFlight; !errors.Is(err, ErrUnclear) || !errors.Is(err, context.Canceled) {
			t.Errorf("in flight: got %v", err)
		}
		if err := <-waits; !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("waiting: got %v", err)
		}
		if d := time.Since(start); d > 0 {
			t.Errorf("the callers were held for %v", d)
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
		w.link.onRequest(nil)
		if got, want := w.values(), []string{"a", "in flight", "stays"}; !slices.Equal(got, want) {
			t.Errorf("the topic holds %q, want %q", got, want)
		}
		top, _ := w.producer.topic("orders")
		if top.records != 0 || top.bytes != 0 {
			t.Errorf("%d records and %d bytes are still counted", top.records, top.bytes)
		}
	})
}

func TestCloseAwaitsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return pass, 2 * time.Second })
		inFlight := w.later(order("k", "b"))
		synctest.Wait()
		waits := w.later(order("k", "c"))
		synctest.Wait()
		start := time.Now()
		w.producer.Close()
		if d := time.Since(start); d != 2*time.Second {
			t.Errorf("Close took %v, want the time of the call in flight", d)
		}
		if err := <-inFlight; err != nil {
			t.Errorf("in flight: %v", err)
		}
		if err := <-waits; !errors.Is(err, ErrClosed) {
			t.Errorf("waiting: %v", err)
		}
		w.took(order("k", "d"), ErrClosed, 0)
		other := order("k", "e")
		other.Topic = "other"
		w.took(other, ErrClosed, 0)
		w.producer.Close() // twice does no harm
	})
}

func TestCloseIsBounded(t *testing.T) {
	for name, prepare := range map[string]func(*world){
		"silence":          func(w *world) { w.link.onRequest(func() (fate, time.Duration) { return silence, 0 }) },
		"connections lost": func(w *world) { w.link.onRequest(func() (fate, time.Duration) { return loseAnswer, 0 }) },
		"no producer id": func(w *world) {
			w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Count: -1})
		},
		"topic not known":      func(w *world) { w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Count: -1}) },
		"broker down":          func(w *world) { w.link.cut() },
		"partition leaderless": func(w *world) { w.leaderless() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, Config{})
				prepare(w)
				var all []<-chan error
				for _, key := range []string{"", "a", "b"} {
					all = append(all, w.later(order(key, "x")))
				}
				<-time.After(time.Second)
				start := time.Now()
				w.producer.Close()
				if d := time.Since(start); d > closeGrace {
					t.Errorf("Close took %v", d)
				}
				for _, done := range all {
					if err := <-done; !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnclear) {
						t.Errorf("got %v", err)
					}
				}
			})
		})
	}
}
