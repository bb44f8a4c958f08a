package ingress

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// storm makes faults at random, at all the places where they can happen.
type storm struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (s *storm) chance(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(100) < percent
}

func (s *storm) upTo(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.rng.Int64N(int64(d)))
}

func (s *storm) request() (fate, time.Duration) {
	switch {
	case s.chance(4):
		return loseAnswer, 0
	case s.chance(3):
		return loseAll, 0
	case s.chance(2):
		return silence, 0
	case s.chance(4):
		return overtaken, 0
	case s.chance(5):
		return pass, s.upTo(maxDelay) // beyond what a try may take
	}
	return pass, s.upTo(5 * time.Millisecond)
}

// TestEachAcceptedRecordOnceAndInOrder is the contract under a storm: what was
// accepted is there once, at the place that was told; per key nothing overtakes
// anything, not even what was given up; and what was refused is not there.
func TestEachAcceptedRecordOnceAndInOrder(t *testing.T) {
	const records = 10_000
	unclear := 0
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 8, Config{Logger: zap.NewNop()})
				s := &storm{rng: rand.New(rand.NewPCG(seed, 1))}
				w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
					codes := []kafka.Error{kafka.NotLeaderForPartition, kafka.RequestTimedOut, kafka.NotEnoughReplicas, kafka.UnknownTopicOrPartition, kafka.Unknown}
					for i, code := range codes {
						if s.chance(1 + i%2) {
							return answer(r, code), nil, true
						}
					}
					return nil, nil, false
				})
				for _, afterAppend := range []*kerr.Error{kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut} {
					w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: afterAppend, Count: -1, When: func(kmsg.Request) bool { return s.chance(1) }})
				}
				outcomes := weather(t, w, s, w.ListenAddrs()[0], records)
				unclear += verify(t, w, outcomes)
			})
		})
	}
	if unclear == 0 {
		t.Error("no record's fate was unclear; the storm is to be one that not all survive")
	}
}

// weather puts records on "orders" through a storm, 40 submitters at a time,
// while late copies of what was lost reach the broker at the address, and gives
// the outcomes by value.
func weather(t *testing.T, w *world, s *storm, address string, records int) map[string]outcome {
	const keys, burst = 40, 5
	w.link.onRequest(s.request)
	stop := make(chan struct{})
	var late sync.WaitGroup
	late.Go(func() {
		for over := false; !over; {
			select {
			case <-time.After(s.upTo(10 * time.Second)):
			case <-stop:
				over = true
			}
			for _, request := range w.link.take() {
				if _, err := w.link.deliver(address, request); err != nil {
					t.Error(err)
				}
			}
		}
	})

	outcomes := make(map[string]outcome)
	var mu sync.Mutex
	var all sync.WaitGroup
	for k := range keys {
		all.Go(func() {
			key := ""
			if k%4 > 0 { // a quarter has no key
				key = fmt.Sprintf("key-%d", k)
			}
			for i := 0; i < records/keys; i += burst {
				got := submit(t, w.producer, key, k, i, burst)
				mu.Lock()
				maps.Copy(outcomes, got)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	w.link.onRequest(nil)
	close(stop)
	late.Wait()
	w.must("", "the storm is over")
	return outcomes
}

// submit queues a burst of records in order, without waiting in between, as
// no single caller can, and gives the outcome of each by value.
func submit(t *testing.T, p *Producer, key string, submitter, from, n int) map[string]outcome {
	top, err := p.topic("orders")
	if err != nil {
		t.Fatal(err)
	}
	burst := make(map[string]*entry, n)
	for i := range n {
		value := fmt.Sprintf("%d:%d", submitter, from+i)
		e := newEntry().(*entry)
		r := order(key, value)
		r.Timeout = 4 * time.Second // little more than one try, so that many are given up
		e.load(r)
		if err := top.put(e); err != nil {
			t.Error(err)
			continue
		}
		burst[value] = e
	}
	got := make(map[string]outcome, n)
	for value, e := range burst {
		got[value] = <-e.done
	}
	return got
}

// verify compares what callers were told with what lies on the topic.
// It gives the number of those whose callers were left in the dark.
func verify(t *testing.T, w *world, outcomes map[string]outcome) int {
	t.Helper()
	count := make(map[error]int)
	there := make(map[string]stored)
	last := make(map[string]int)
	for _, s := range w.read("orders") {
		if strings.HasPrefix(s.value, "the storm") {
			continue
		}
		if before, ok := there[s.value]; ok {
			t.Errorf("%q is there twice: %v and %v", s.value, before, s)
		}
		there[s.value] = s
		if s.key == "" {
			continue // no order is promised
		}
		_, number, _ := strings.Cut(s.value, ":")
		i, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := last[s.key]; ok && i < before {
			t.Errorf("key %q: %d lies behind %d", s.key, i, before)
		}
		last[s.key] = i
	}
	for value, o := range outcomes {
		s, ok := there[value]
		switch kind := sentinel(o.err); {
		case o.err == nil:
			count[nil]++
			if !ok || s.partition != o.ack.Partition || s.offset != o.ack.Offset {
				t.Errorf("%q was told to be at %+v, and is at %+v (there: %t)", value, o.ack, s, ok)
			}
		case kind == nil:
			t.Errorf("%q got an error of no known kind: %v", value, o.err)
		case !errors.Is(kind, ErrUnclear) && ok:
			t.Errorf("%q is there in spite of %v", value, o.err)
		default:
			count[kind]++
		}
	}
	t.Logf("accepted %d, unclear %d, unavailable %d", count[nil], count[ErrUnclear], count[ErrUnavailable])
	if count[nil] < len(outcomes)/2 {
		t.Errorf("only %d of %d records were accepted; the storm is to be one that most survive", count[nil], len(outcomes))
	}
	return count[ErrUnclear]
}
