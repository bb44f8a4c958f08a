package ingress

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An answer that was lost: the same bytes again, and the broker tells where
// they already are.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	faults := map[string]func(*world){
		"connection lost": func(w *world) { w.link.once(loseAnswer) },
		"not enough replicas after append": func(w *world) {
			w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend})
		},
		"timed out after append": func(w *world) { w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut}) },
		"lost on the way":        func(w *world) { w.link.once(loseAll) },
		"silence":                func(w *world) { w.link.once(silence) },
	}
	for name, fault := range faults {
		for _, key := range []string{"k", ""} {
			t.Run(name+"/key="+key, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 4, Config{})
					var sent [][]byte
					w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
						for _, p := range r.Topics[0].Partitions {
							sent = append(sent, bytes.Clone(p.Records))
						}
						return nil, nil, false
					})
					w.must(key, "before")
					fault(w)
					ack := w.must(key, "order")
					for _, s := range w.read("orders") {
						if s.value == "order" && (s.partition != ack.Partition || s.offset != ack.Offset) {
							t.Errorf("told %+v, is at %+v", ack, s)
						}
					}
					if got := len(w.values()); got != 2 {
						t.Errorf("the topic holds %q, want two records", w.values())
					}
					if len(sent) == 3 && !bytes.Equal(sent[1], sent[2]) {
						t.Error("the second try has other bytes than the first")
					}
				})
			})
		}
	}
}

// The scenario that the epoch is for: a batch is given up, its successor is
// acknowledged, and then the network delivers the first one after all.
func TestLateBatchOfTheOldEpochIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		var seen []identity
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			seen = append(seen, identities(r)[0])
			return nil, nil, false
		})
		w.must("k", "a")
		w.link.onRequest(func() (fate, time.Duration) { return overtaken, 0 })
		w.took(timed(order("k", "late"), time.Second), ErrUnclear, time.Second)
		w.link.onRequest(nil)
		w.must("k", "b")
		w.must("k", "c")

		kept := w.link.take()
		if len(kept) == 0 {
			t.Fatal("the link kept no request")
		}
		for _, request := range kept {
			if _, err := w.link.deliver(w.ListenAddrs()[0], request); err != nil {
				t.Fatal(err)
			}
		}
		w.must("k", "d")
		if got, want := w.values(), []string{"a", "b", "c", "d"}; !slices.Equal(got, want) {
			t.Errorf("the topic holds %q, want %q", got, want)
		}
		id := seen[0].producer
		want := []identity{{id, 0, 0}, {id, 1, 0}, {id, 1, 1}, {id, 0, 1}, {id, 1, 2}}
		if !slices.Equal(seen, want) {
			t.Errorf("the broker saw %v, want %v", seen, want)
		}
	})
}

// A late batch that comes before its successor is in the log, in its place:
// that is what "may have been queued" means.
func TestLateBatchBeforeItsSuccessorIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.link.once(overtaken)
		w.took(timed(order("k", "late"), time.Second), ErrUnclear, time.Second)
		for _, request := range w.link.take() {
			if _, err := w.link.deliver(w.ListenAddrs()[0], request); err != nil {
				t.Fatal(err)
			}
		}
		w.must("k", "b")
		if got, want := w.values(), []string{"a", "late", "b"}; !slices.Equal(got, want) {
			t.Errorf("the topic holds %q, want %q", got, want)
		}
	})
}

// Giving up on one partition neither stops nor renumbers the others.
func TestGivingUpLeavesOtherPartitionsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, Config{})
		other := map[int32]string{}
		for _, key := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			other[w.must(key, "first").Partition] = key
		}
		var victim int32
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			for p := range identities(r) {
				if p == victim {
					return answer(r, kafka.RequestTimedOut), nil, true
				}
			}
			return nil, nil, false
		})
		given := w.later(order(other[victim], "given up"))
		for p, key := range other {
			if p == victim {
				continue
			}
			start := time.Now()
			w.must(key, "second")
			if d := time.Since(start); d > 100*time.Millisecond {
				t.Errorf("a record for partition %d waited %v", p, d)
			}
		}
		if err := <-given; !errors.Is(err, ErrUnclear) {
			t.Error(err)
		}
	})
}

func TestUnknownProducerGetsANewID(t *testing.T) {
	for _, code := range []kafka.Error{
		kafka.OutOfOrderSequenceNumber, kafka.UnknownProducerId, kafka.InvalidProducerEpoch,
		kafka.InvalidProducerIDMapping, kafka.ProducerFenced,
	} {
		t.Run(code.Title(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, Config{})
				var seen []identity
				var codes []kafka.Error
				w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
					seen = append(seen, identities(r)[0])
					if len(codes) == 0 {
						return nil, nil, false
					}
					next := codes[0]
					codes = codes[1:]
					return answer(r, next), nil, true
				})
				w.must("k", "a")
				// Nothing can have been appended: the record goes out under a new id.
				codes = []kafka.Error{code}
				w.must("k", "b")
				if seen[2].producer == seen[1].producer || seen[2].sequence != 0 {
					t.Errorf("after the refusal of %v the broker saw %v", seen[1], seen[2])
				}
				// An earlier try is open: nobody can know.
				codes = []kafka.Error{kafka.RequestTimedOut, code}
				if _, err := w.produce("k", "c"); !errors.Is(err, ErrUnclear) {
					t.Errorf("got %v, want %v", err, ErrUnclear)
				}
				w.must("k", "d")
				if last := seen[len(seen)-1]; last.producer == seen[2].producer || last.sequence != 0 {
					t.Errorf("after the unclear end of %v the broker saw %v", seen[2], last)
				}
			})
		})
	}
}

// A fresh Kafka has no coordinator for some seconds.
func TestProducerIDIsAskedForUntilThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		codes := []kafka.Error{kafka.GroupCoordinatorNotAvailable, kafka.NotCoordinatorForGroup, kafka.GroupLoadInProgress, kafka.Unknown}
		w.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			if len(codes) == 0 {
				return nil, nil, false
			}
			a := r.ResponseKind().(*kmsg.InitProducerIDResponse)
			a.ErrorCode = int16(codes[0])
			codes = codes[1:]
			return a, nil, true
		})
		w.must("", "a")
		w.must("k", "b")
		if len(codes) > 0 {
			t.Errorf("%d refusals were not met", len(codes))
		}
	})
}

func TestProducerIDRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ClusterAuthorizationFailed, Count: -1})
		w.took(order("k", "a"), ErrRefused, 0)
		_, err := w.produce("", "b")
		if !errors.Is(err, kafka.ClusterAuthorizationFailed) {
			t.Errorf("%v does not wrap the broker's code", err)
		}
	})
}

func TestEpochsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		var seen []identity
		w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
			seen = append(seen, identities(r)[0])
			return nil, nil, false
		})
		w.must("k", "a")
		top, err := w.producer.topic("orders")
		if err != nil {
			t.Fatal(err)
		}
		id := &top.parts[0].id // nothing is in flight
		id.epoch = math.MaxInt16 - 1
		id.raise()
		w.must("k", "b")
		w.must("k", "c")
		id.raise()
		w.must("k", "d")
		first := seen[0].producer
		if want := []identity{{first, 0, 0}, {first, math.MaxInt16, 0}, {first, math.MaxInt16, 1}}; !slices.Equal(seen[:3], want) {
			t.Errorf("the broker saw %v, want %v", seen[:3], want)
		}
		if seen[3].producer == first || seen[3].epoch != 0 || seen[3].sequence != 0 {
			t.Errorf("after the last epoch the broker saw %v, want a new producer id", seen[3])
		}
	})
}

func TestSequenceNeverWraps(t *testing.T) {
	const largest = maxBatch / (maxRecordHead + 1) // records a batch
	id := identity{producer: 7, sequence: maxSequence - 1}
	if id.advance(1); id.sequence != maxSequence || id.epoch != 0 {
		t.Errorf("got %v before the bound", id)
	}
	if last := int(id.sequence) + largest; last >= math.MaxInt32 {
		t.Errorf("a batch of %d records ends at %d", largest, last)
	}
	if id.advance(1); id != (identity{producer: 7, epoch: 1}) {
		t.Errorf("got %v beyond the bound, want the start of the next epoch", id)
	}
}
