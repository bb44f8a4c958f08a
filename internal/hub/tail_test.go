package hub

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestBrokerDownAndUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		r.put(0, part("a", "one"))
		r.goDown()
		behind := r.follow(s, nil) // nothing is known yet
		expect(t, behind, "silence")
		r.comeUp()
		expect(t, behind, "reply one @0/0", "caught up")
		r.put(0, part("a", "two"))
		expect(t, behind, "reply two @0/1")
		r.goDown()
		expect(t, behind, "silence")
		r.comeUp()
		r.put(0, last("a", "three"))
		expect(t, behind, "reply three @0/2", "end replied-end")
	})
}

func TestLeaderMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 2, kfake.NumBrokers(2), kfake.Ports(9092, 9093))
		a, b := r.follow(r.stream("a"), nil), r.follow(r.stream("b"), nil)
		expect(t, a, "caught up")
		expect(t, b, "caught up")
		for i := range 20 {
			if err := r.MoveTopicPartition(gatewayTopic, 0, int32(i%2)); err != nil {
				t.Fatal(err)
			}
			r.putRetrying(part("a", "x"), part("b", "y"))
			expect(t, a, fmt.Sprintf("reply x @0/%d", 2*i))
			expect(t, b, fmt.Sprintf("reply y @0/%d", 2*i+1))
		}
		// A scan follows the leader too.
		if err := r.MoveTopicPartition(gatewayTopic, 0, 0); err != nil {
			t.Fatal(err)
		}
		late := r.follow(r.stream("b"), nil)
		for i := range 20 {
			expect(t, late, fmt.Sprintf("reply y @0/%d", 2*i+1))
		}
		expect(t, late, "caught up")
	})
}

// putRetrying produces to partition 0 as soon as its leader is found.
func (r *rig) putRetrying(replies ...record.Reply) {
	r.t.Helper()
	records := make([]kafka.Record, len(replies))
	for tries := 0; ; tries++ {
		for i, reply := range replies {
			rec := reply.Record()
			records[i] = kafka.Record{Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}
		}
		answer, err := r.producer.API().Produce(r.t.Context(), &kafka.ProduceRequest{
			Topic: gatewayTopic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
		})
		if err == nil && answer.Error == nil {
			return
		}
		if tries == 100 {
			r.t.Fatal(err, answer)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// An open stream goes over to the topic's next life, and says so.
func TestTopicRecreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		old := r.stream("a")
		r.put(0, part("a", "one"), part("a", "two"))
		sub := r.follow(old, nil)
		expect(t, sub, "reply one @0/0", "reply two @0/1", "caught up")
		r.recreate(1)
		r.put(0, part("b", "x"), part("a", "three"))
		expect(t, sub, "gap recreated", "reply three @0/1")

		// The same for clients that come later, with tokens and cursors of the old life.
		expect(t, r.follow(old, nil), "gap recreated", "reply three @0/1", "caught up")
		expect(t, r.follow(old, &Cursor{Incarnation: old.Incarnation, Offset: 1}), "gap recreated", "reply three @0/1", "caught up")
		// A cursor of the new life needs no gap: the client was told.
		expect(t, r.follow(old, &Cursor{Incarnation: r.incarnation(), Offset: 1}), "caught up", "silence")
		r.put(0, last("a", "four"))
		expect(t, sub, "reply four @0/2", "end replied-end", "eof")
		expect(t, r.follow(old, &Cursor{Incarnation: r.incarnation(), Offset: 2, Mark: MarkEnd}), "eof")
	})
}

// A topic made again with fewer partitions has the stream where its id is placed.
func TestTopicRecreatedSmaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3)
		old := r.stream("a")
		old.Partition = 2
		sub := r.follow(old, nil)
		expect(t, sub, "caught up")
		r.recreate(1)
		r.put(0, last("a", "one"))
		expect(t, sub, "gap recreated", "reply one @0/0", "end replied-end")
	})
}

// placed finds a stream id that belongs to one partition of n and another of m.
func placed(t *testing.T, at, n, to, m int32) string {
	t.Helper()
	for i := range 10_000 {
		id := fmt.Sprint("stream", i)
		if record.Partition([]byte(id), n) == at && record.Partition([]byte(id), m) == to {
			return id
		}
	}
	t.Fatal("no id found")
	return ""
}

// metadataTTL is how long kafka-go believes in what it knows of a topic.
const metadataTTL = 2 * time.Second

// When the reply topic has grown, replies are found in both partitions that a
// worker may choose.
func TestTopicGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		id := placed(t, 0, 1, 2, 3)
		time.Sleep(time.Hour) // so that there is a time before the stream
		s := r.stream(id)
		r.put(0, part(id, "one"))
		sub := r.follow(s, nil)
		expect(t, sub, "reply one @0/0", "caught up")
		r.grow(r.client, 3)
		time.Sleep(2 * metadataTTL) // the test's producer must hear of it
		r.put(0, part(id, "two"))
		r.put(2, part("other", "x"), part(id, "three"))
		expect(t, sub, "reply two @0/1", "reply three @2/1")

		// One that begins after the growth reads both as well.
		late := r.follow(s, nil)
		seen := map[string]bool{}
		for range 3 {
			seen[tell(next(late))] = true
		}
		if !seen["reply one @0/0"] || !seen["reply two @0/1"] || !seen["reply three @2/1"] {
			t.Fatal(seen)
		}
		expect(t, late, "caught up")
		// A cursor names one partition; what the other has comes again.
		resumed := r.follow(s, &Cursor{Incarnation: s.Incarnation, Partition: 2, Offset: 1})
		expect(t, resumed, "reply one @0/0", "reply two @0/1", "caught up")

		r.put(2, last(id, "four"))
		for _, each := range []*Subscription{sub, late, resumed} {
			expect(t, each, "reply four @2/2", "end replied-end", "eof")
		}
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Partition: 2, Offset: 2, Mark: MarkEnd}), "eof")
	})
}

// Of a stream that was answered in two partitions, all is told before the end,
// whichever of the two is read first.
func TestEndAfterBothPartitions(t *testing.T) {
	for _, first := range []int32{0, 2} {
		t.Run(fmt.Sprint("partition ", first, " first"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 1)
				id := placed(t, 0, 1, 2, 3)
				time.Sleep(time.Hour)
				s := r.stream(id)
				r.grow(r.client, 3)
				time.Sleep(2 * metadataTTL)
				r.put(0, part(id, "one"), part(id, "two"))
				r.put(2, last(id, "three"))
				// The other partition is not to be had for a while.
				stuck := r.Fault(kfake.Fault{
					Keys: []kmsg.Key{kmsg.ListOffsets, kmsg.Fetch}, Partitions: []int32{2 - first}, Err: kerr.NotLeaderForPartition, Count: -1,
				})
				sub := r.follow(s, nil)
				if first == 0 {
					expect(t, sub, "reply one @0/0", "reply two @0/1")
				}
				expect(t, sub, "silence")
				stuck.Remove()
				if first == 2 {
					expect(t, sub, "reply one @0/0", "reply two @0/1")
				}
				expect(t, sub, "reply three @2/0", "end replied-end", "eof")
			})
		})
	}
}

// A stream that has expired with an end of its own in one partition ends with
// that, once the other was read.
func TestEndWaitsBeyondExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		id := placed(t, 0, 1, 2, 3)
		time.Sleep(time.Hour)
		s := r.stream(id)
		r.grow(r.client, 3)
		time.Sleep(2 * metadataTTL)
		r.put(2, last(id, "one"))
		stuck := r.Fault(kfake.Fault{
			Keys: []kmsg.Key{kmsg.ListOffsets, kmsg.Fetch}, Partitions: []int32{0}, Err: kerr.NotLeaderForPartition, Count: -1,
		})
		sub := r.follow(s, nil)
		time.Sleep(time.Until(s.Expires.Add(time.Minute)))
		expect(t, sub, "silence")
		stuck.Remove()
		expect(t, sub, "reply one @2/0", "end replied-end", "eof")
	})
}

// A log that ends earlier than it did has lost records: the client is told, and
// gets what is there.
func TestLogTruncatedUnderTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		r.put(0, part("a", "one"), part("a", "two"))
		expect(t, sub, "reply one @0/0", "reply two @0/1", "caught up")

		// The broker now says that the log has one record.
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			fetch := q.(*kmsg.FetchRequest)
			answer := q.ResponseKind().(*kmsg.FetchResponse)
			for _, asked := range fetch.Topics {
				p := kmsg.NewFetchResponseTopicPartition()
				p.ErrorCode = int16(kafka.OffsetOutOfRange)
				topic := kmsg.NewFetchResponseTopic()
				topic.TopicID, topic.Partitions = asked.TopicID, []kmsg.FetchResponseTopicPartition{p}
				answer.Topics = append(answer.Topics, topic)
			}
			return answer, nil, true
		})
		short := func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			list := q.(*kmsg.ListOffsetsRequest)
			if list.Topics[0].Partitions[0].Timestamp != -1 {
				return nil, nil, false
			}
			answer := q.ResponseKind().(*kmsg.ListOffsetsResponse)
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Offset = 1
			topic := kmsg.NewListOffsetsResponseTopic()
			topic.Topic, topic.Partitions = gatewayTopic, []kmsg.ListOffsetsResponseTopicPartition{p}
			answer.Topics = append(answer.Topics, topic)
			return answer, nil, true
		}
		r.ControlKey(int16(kmsg.ListOffsets), short)
		// What lies there since, lies where the lost record was.
		expect(t, sub, "gap truncated", "reply one @0/0", "reply two @0/1")
	})
}

// Each partition stands first in some round, and those of a topic always together.
func TestRotate(t *testing.T) {
	topics := []*topic{{name: "a"}, {name: "b"}, {name: "c"}}
	var sorted []following
	for i, n := range []int{3, 1, 2} {
		for index := range int32(n) {
			sorted = append(sorted, following{partition: &partition{topic: topics[i], index: index}})
		}
	}
	firsts := make(map[*partition]bool)
	for round := range sorted {
		got := rotate(sorted, round)
		firsts[got[0].partition] = true
		changes := 0
		seen := make(map[*partition]bool)
		for i, f := range got {
			seen[f.partition] = true
			if i > 0 && f.topic != got[i-1].topic {
				changes++
			}
		}
		if changes != len(topics)-1 || len(seen) != len(sorted) {
			t.Errorf("round %d has %d partitions, and topics that change %d times", round, len(seen), changes)
		}
	}
	if len(firsts) != len(sorted) {
		t.Errorf("%d of %d partitions stood first", len(firsts), len(sorted))
	}
	if rotate(nil, 7) != nil {
		t.Error("something of nothing")
	}
}

// A partition that always has more than an answer takes does not keep the others
// of its broker from being read.
func TestBusyPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 3)
		subs := make([]*Subscription, 3)
		for p := range int32(3) {
			s := r.stream("a")
			s.Partition = p
			subs[p] = r.follow(s, nil)
			expect(t, subs[p], "caught up")
		}
		// What stands first in the request fills the answer.
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			for i := range q.(*kmsg.FetchRequest).Topics {
				of := &q.(*kmsg.FetchRequest).Topics[i]
				of.Partitions = of.Partitions[:1]
			}
			return nil, nil, false
		})
		for p := range int32(3) {
			r.put(p, last("a", "one"))
		}
		for p, sub := range subs {
			expect(t, sub, fmt.Sprintf("reply one @%d/0", p), "end replied-end")
		}
	})
}

// A broker that answers with an error it should not give is asked again, and
// not in a loop.
func TestBrokerErrors(t *testing.T) {
	for _, code := range []kafka.Error{kafka.NotLeaderForPartition, kafka.UnknownTopicOrPartition, kafka.KafkaStorageError, kafka.OffsetOutOfRange, kafka.Unknown} {
		t.Run(code.Title(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 1)
				sub := r.follow(r.stream("a"), nil)
				expect(t, sub, "caught up")
				var asked atomic.Int64
				until := time.Now().Add(20 * time.Second)
				r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
					if time.Now().After(until) {
						return nil, nil, false
					}
					r.KeepControl()
					asked.Add(1)
					answer := q.ResponseKind().(*kmsg.FetchResponse)
					for _, t := range q.(*kmsg.FetchRequest).Topics {
						p := kmsg.NewFetchResponseTopicPartition()
						p.ErrorCode = int16(code)
						topic := kmsg.NewFetchResponseTopic()
						topic.TopicID, topic.Partitions = t.TopicID, []kmsg.FetchResponseTopicPartition{p}
						answer.Topics = append(answer.Topics, topic)
					}
					return answer, nil, true
				})
				r.put(0, last("a", "one"))
				expect(t, sub, "silence")
				time.Sleep(15 * time.Second)
				expect(t, sub, "reply one @0/0", "end replied-end")
				if n := asked.Load(); n > 60 {
					t.Errorf("asked %d times in 20 seconds", n)
				}
			})
		})
	}
}

// Replies of a transaction come when it is committed, and never if it is not.
func TestTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		worker, err := kgo.NewClient(kgo.SeedBrokers(r.ListenAddrs()...), kgo.Dialer(r.dial), kgo.TransactionalID("worker"),
			kgo.DefaultProduceTopic(gatewayTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer worker.Close()
		transact := func(reply record.Reply) {
			t.Helper()
			if err := worker.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			rec := reply.Record()
			k := &kgo.Record{Value: rec.Value}
			for _, h := range rec.Headers {
				k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			if err := worker.ProduceSync(context.Background(), k).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		finish := func(commit kgo.TransactionEndTry) {
			t.Helper()
			if err := worker.EndTransaction(context.Background(), commit); err != nil {
				t.Fatal(err)
			}
		}

		transact(last("a", "aborted"))
		r.put(0, part("a", "one")) // behind an open transaction
		expect(t, sub, "silence")
		expect(t, r.follow(s, nil), "caught up", "silence") // does not wait for it
		finish(kgo.TryAbort)
		expect(t, sub, "reply one @0/1")

		transact(part("a", "two"))
		finish(kgo.TryCommit)
		expect(t, sub, "reply two @0/3", "silence")

		// Both as a scan reads them.
		r.hub = r.newHub(Config{})
		expect(t, r.follow(s, nil), "reply one @0/1", "reply two @0/3", "caught up")
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Offset: 0, Mark: MarkEnd}), "gap cursor", "reply one @0/1")

		// The end waits for a transaction that was open when the stream expired.
		time.Sleep(time.Until(s.Expires.Add(-10 * time.Second)))
		transact(last("a", "three"))
		expect(t, sub, "silence", "silence")
		finish(kgo.TryCommit)
		expect(t, sub, "reply three @0/5", "end replied-end")
	})
}

// A hub that was started owns the partitions, reads them before anyone asks,
// and gives floors that hold.
func TestHomePartitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 4)
		h := r.newHub(Config{})
		h.Start()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := h.Stats(); s.Home != 4 || s.Tails != 4 {
			t.Fatalf("%+v", s)
		}
		r.put(2, part("x", "before"), part("x", "before"))
		time.Sleep(time.Second)
		for range 100 {
			at, err := h.Place(t.Context())
			if err != nil || at.Topic != gatewayTopic || at.Partitions != 4 || at.Incarnation != r.incarnation() {
				t.Fatalf("%+v %v", at, err)
			}
			if want := map[int32]int64{2: 2}[at.Partition]; at.Floor != want {
				t.Fatalf("%+v instead of a floor of %d", at, want)
			}
		}
		if got := h.positions(); len(got) != 4 || got[2] != 2 {
			t.Errorf("%v", got)
		}
		h.setHome([]int32{1})
		time.Sleep(tailLinger + 3*topicRefresh)
		if s := h.Stats(); s.Home != 1 || s.Tails != 1 {
			t.Errorf("%+v", s)
		}
	})
}
