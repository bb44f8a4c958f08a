package ingress

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func three() []kfake.Opt { return []kfake.Opt{kfake.NumBrokers(3), kfake.Ports(9093, 9094, 9095)} }

// portOf gives the port of a broker as an address ends with it.
func (w *world) portOf(node int32) string {
	w.t.Helper()
	answer, err := w.client.API().Metadata(w.t.Context(), &kafka.MetadataRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range answer.Brokers {
		if b.ID == int(node) {
			return fmt.Sprintf(":%d", b.Port)
		}
	}
	w.t.Fatalf("no broker %d", node)
	return ""
}

// leaderless makes metadata name no leader for any partition, until undone.
func (w *world) leaderless() (undo func()) {
	var undone atomic.Bool
	w.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.KeepControl()
		q := r.(*kmsg.MetadataRequest)
		if undone.Load() || len(q.Topics) == 0 { // the Transport asks for all
			return nil, nil, false
		}
		a := r.ResponseKind().(*kmsg.MetadataResponse)
		at := kmsg.NewMetadataResponseTopic()
		at.Topic, at.TopicID = q.Topics[0].Topic, w.TopicInfo(*q.Topics[0].Topic).TopicID
		for p := range w.PartitionInfos(*at.Topic) {
			ap := kmsg.NewMetadataResponseTopicPartition()
			ap.Partition, ap.Leader = int32(p), -1
			at.Partitions = append(at.Partitions, ap)
		}
		a.Topics = append(a.Topics, at)
		return a, nil, true
	})
	return func() { undone.Store(true) }
}

func TestLeaderMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, Config{}, three()...)
		for i := range 30 {
			key := fmt.Sprint(i % 7)
			p := record.Partition([]byte(key), 3)
			if err := w.MoveTopicPartition("orders", p, (w.LeaderFor("orders", p)+1)%3); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			w.must(key, fmt.Sprint(i))
			if d := time.Since(start); d > time.Second {
				t.Errorf("the record after the move took %v", d)
			}
		}
		if got := len(w.values()); got != 30 {
			t.Errorf("the topic holds %d records, want 30", got)
		}
	})
}

func TestPartitionWithoutALeaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{})
		undo := w.leaderless()
		first, second := w.later(order("k", "a")), w.later(order("", "b"))
		<-time.After(5 * time.Second)
		undo()
		if err := errors.Join(<-first, <-second); err != nil {
			t.Error(err)
		}
	})
}

// Shared records do not wait for a leader that is silent while others work.
func TestSharedRecordsAvoidASilentLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, Config{}, three()...)
		for range 12 {
			w.must("", "before")
		}
		var hit, calls atomic.Int32
		w.link.onRequest(func() (fate, time.Duration) {
			if calls.Add(1) == 1 {
				hit.Add(1)
				return silence, 0
			}
			return pass, 0
		})
		first := w.later(order("", "meets the silence"))
		synctest.Wait()
		for i := range 50 {
			start := time.Now()
			w.must("", fmt.Sprintf("goes elsewhere %d", i))
			if d := time.Since(start); d > 200*time.Millisecond {
				t.Errorf("record %d took %v", i, d)
			}
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
	})
}

// A leader that stays silent gets few of the shared records: those that find
// out, and now and then one that looks whether it is back.
func TestSharedRecordsSeldomTryASilentLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9, Config{}, three()...)
		for range 30 {
			w.must("", "before")
			synctest.Wait()
		}
		info, err := w.client.Topic(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		w.link.mute.Store(w.portOf(info.Leaders[0]))
		var lost atomic.Int32
		var all sync.WaitGroup
		for range 600 {
			all.Go(func() {
				if _, err := w.produce("", "x"); err != nil {
					lost.Add(1)
				}
			})
			<-time.After(100 * time.Millisecond)
		}
		w.link.mute.Store("none")
		all.Wait()
		if n := lost.Load(); n == 0 || n > 10 {
			t.Errorf("%d of 600 records got no answer in a minute, want a few", n)
		}
	})
}

// One batch a partition, two calls a leader: more would break the order or
// make batches small.
func TestInFlightBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8, Config{})
		for i := range 40 { // every partition has its producer id
			w.must(fmt.Sprint(i), "before")
		}
		var calls, most atomic.Int32
		w.link.onRequest(func() (fate, time.Duration) {
			n := calls.Add(1)
			most.Store(max(most.Load(), n))
			time.AfterFunc(time.Second, func() { calls.Add(-1) })
			return pass, time.Second
		})
		var all []<-chan error
		for i := range 100 {
			key := ""
			if i%2 == 0 {
				key = fmt.Sprint(i)
			}
			all = append(all, w.later(order(key, "x")))
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		start := time.Now()
		for _, done := range all {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != maxSenders {
			t.Errorf("%d calls at once, want %d", most.Load(), maxSenders)
		}
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("100 records took %v, want two or three calls one after the other", d)
		}
	})
}

// A record that finds the way free goes at once: there is no linger.
func TestNoTimeIsLostOnAFreeWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, Config{})
		for _, key := range []string{"", "k", "", "l", "k"} {
			start := time.Now()
			w.must(key, "x")
			if d := time.Since(start); d > 0 {
				t.Errorf("a record with key %q took %v of virtual time", key, d)
			}
		}
	})
}

func TestOneTopicDoesNotHoldAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, Config{}, kfake.SeedTopics(2, "slow"))
		slow := order("k", "x")
		slow.Topic = "slow"
		if _, err := w.producer.Produce(t.Context(), slow); err != nil {
			t.Fatal(err)
		}
		w.must("k", "a")
		w.link.once(silence)
		stuck := w.later(slow)
		synctest.Wait()
		for range 5 {
			start := time.Now()
			w.must("k", "b")
			w.must("", "c")
			if d := time.Since(start); d > 0 {
				t.Errorf("took %v behind the slow topic", d)
			}
		}
		if err := <-stuck; err != nil {
			t.Error(err)
		}
	})
}

// Records without a key reach every partition, so that all consumers of a
// group have work.
func TestSharedRecordsGoEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8, Config{}, three()...)
		count := make(map[int32]int)
		for range 160 {
			count[w.must("", "x").Partition]++
			synctest.Wait() // producer ids are there before the next
		}
		for p := range int32(8) {
			if count[p] < 14 {
				t.Errorf("partition %d got %d of 160 records: %v", p, count[p], count)
			}
		}
	})
}

// While a record of a key is in flight for its old partition, the next one of
// that key must not overtake it on the new one; and calls that overlap must not
// put the change off for ever.
func TestTopicGrowsUnderLoad(t *testing.T) {
	// The first is quick enough for an overtaking, the second slow enough that
	// there is always a call under way.
	for _, pace := range []time.Duration{800 * time.Millisecond, time.Second} {
		t.Run(pace.String(), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { growUnderLoad(t, pace) }) })
	}
}

func growUnderLoad(t *testing.T, pace time.Duration) {
	w := newWorld(t, 2, Config{})
	w.must("a", "before")
	w.must("b", "before")
	w.grow(6)
	<-time.After(refreshEvery + time.Second)
	var calls atomic.Int32
	w.link.onRequest(func() (fate, time.Duration) {
		if calls.Add(1) == 1 { // the one that is in flight when the growth is found out
			return pass, attemptTimeout - time.Millisecond
		}
		return pass, pace
	})
	arrived := make(map[string]string) // key → the value that came last
	w.onProduce(func(_ int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool) {
		for _, p := range r.Topics[0].Partitions {
			for _, m := range regexp.MustCompile(`([a-d])#\d{3}`).FindAllStringSubmatch(string(p.Records), -1) {
				if m[0] < arrived[m[1]] {
					t.Errorf("%q came to the broker after %q", m[0], arrived[m[1]])
				}
				arrived[m[1]] = m[0]
			}
		}
		return nil, nil, false
	})
	var all sync.WaitGroup
	var last sync.Map // key → Ack
	for i := range 60 {
		key := string(rune('a' + i%4))
		all.Go(func() {
			ack, err := w.produce(key, fmt.Sprintf("%s#%03d", key, i))
			if err != nil {
				t.Error(err)
			}
			last.Store(key, ack)
		})
		<-time.After(240 * time.Millisecond)
	}
	all.Wait()
	w.link.onRequest(nil)
	for _, key := range []string{"a", "b", "c", "d"} {
		ack, _ := last.Load(key)
		if got, want := ack.(Ack).Partition, record.Partition([]byte(key), 6); got != want {
			t.Errorf("key %q is still on partition %d, want %d", key, got, want)
		}
	}
}

// Partitions that are added are used without a restart, for new records by
// their place among all of them.
func TestTopicGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, Config{})
		w.must("k", "a")
		w.grow(6)
		<-time.After(refreshEvery + time.Second)
		w.must("k", "b") // finds out
		<-time.After(10 * time.Millisecond)
		for i := range 20 {
			key := fmt.Sprint(i)
			if got, want := w.must(key, "c").Partition, record.Partition([]byte(key), 6); got != want {
				t.Errorf("key %q went to partition %d, want %d", key, got, want)
			}
		}
	})
}

// A topic has grown, which the producer does not know yet, and a broker goes
// silent whose partitions others lead at once. The batch that it did not answer
// goes to the new leader, and only then do the partitions change.
func TestTopicGrowsAsALeaderFails(t *testing.T) {
	for _, grow := range []bool{false, true} {
		t.Run(fmt.Sprintf("grow=%v", grow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3, Config{}, three()...)
				for i := range 30 {
					w.must(fmt.Sprint(i), "before")
				}
				p := record.Partition([]byte("k"), 3)
				dead := w.LeaderFor("orders", p)
				if grow {
					w.grow(4)
				}
				w.link.mute.Store(w.portOf(dead))
				start := time.Now()
				unanswered := w.later(order("k", "unanswered"))
				synctest.Wait()
				for q := range int32(len(w.PartitionInfos("orders"))) {
					if w.LeaderFor("orders", q) == dead {
						if err := w.MoveTopicPartition("orders", q, (dead+1)%3); err != nil {
							t.Fatal(err)
						}
					}
				}
				<-time.After(attemptTimeout + 500*time.Millisecond)
				for i := range 30 {
					began := time.Now()
					w.must(fmt.Sprint(i), "after")
					if d := time.Since(began); d > 100*time.Millisecond {
						t.Errorf("a record of key %d took %v after the failure", i, d)
					}
				}
				if err := <-unanswered; err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > attemptTimeout+time.Second {
					t.Errorf("the unanswered one took %v", d)
				}
			})
		})
	}
}
