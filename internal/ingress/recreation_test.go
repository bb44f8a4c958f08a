package ingress

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// remake deletes "orders" and makes it again.
func (w *world) remake(partitions int32) {
	w.t.Helper()
	if err := errors.Join(w.DeleteTopic("orders"), w.CreateTopic("orders", partitions, nil)); err != nil {
		w.t.Fatal(err)
	}
}

// What may be in a topic that is not there any more does not come into the one
// that has its name now, where its acknowledgement would tell a wrong place:
// brokers before 4.1 go by names. Nor does it wait for its deadline.
func TestUnclearBatchOfATopicThatIsGone(t *testing.T) {
	for name, versions := range map[string]*kversion.Versions{"by name": kversion.V4_0_0(), "by id": kversion.V4_1_0()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, Config{}, kfake.MaxVersions(versions))
				before := w.must("k", "a")
				start := time.Now()
				w.link.once(loseAll)
				unclear := w.later(order("k", "b"))
				synctest.Wait()
				w.remake(2)
				if err := <-unclear; !errors.Is(err, ErrUnclear) || time.Since(start) > time.Second {
					t.Errorf("got %v after %v, want %v", err, time.Since(start), ErrUnclear)
				}
				after := w.must("k", "c")
				info, err := w.client.Topic(t.Context(), "orders")
				if err != nil || after.Incarnation == before.Incarnation || after.Incarnation != info.ID.Incarnation() {
					t.Errorf("incarnation %x before, %x after, the topic's is %x, %v", before.Incarnation, after.Incarnation, info.ID.Incarnation(), err)
				}
				if got := w.values(); !slices.Equal(got, []string{"c"}) {
					t.Errorf("the topic holds %q", got)
				}
			})
		})
	}
}

// The new life of a topic begins with new producer ids: under those of the old
// one a late batch could be taken for the next one of its own.
func TestRecreatedTopicGetsNewProducerIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		var seen []identity
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			seen = append(seen, identities(r)[0])
			return nil, nil, false
		})
		w.must("k", "a")
		w.remake(1)
		w.must("k", "b")
		// The second try finds out, by the topic's id. The third is under a new
		// one from the start, not because the broker does not know the old one.
		if len(seen) != 3 || seen[1].producer != seen[0].producer {
			t.Fatalf("the broker saw %v", seen)
		}
		if last := seen[2]; last.producer == seen[0].producer || last.epoch != 0 || last.sequence != 0 {
			t.Errorf("the broker saw %v before and %v after", seen[0], last)
		}
	})
}
