package deliver

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// tally counts tries by stream.
type tally struct{ counts sync.Map }

func (t *tally) add(r *http.Request) int64 {
	n, _ := t.counts.LoadOrStore(r.Header.Get(HeaderStreamID), new(atomic.Int64))
	return n.(*atomic.Int64).Add(1)
}

func (t *tally) of(id string) int64 {
	n, ok := t.counts.Load(id)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// counted echoes, and counts.
func (t *tally) counted(w http.ResponseWriter, r *http.Request) error {
	t.add(r)
	return echo(w, r)
}

// refuse has brokers answer one kind of request with an error, as long as that
// is not 0.
func (r *rig) refuse(key kmsg.Key, code *atomic.Int64, answer func(kmsg.Request, int16) kmsg.Response) {
	r.cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		if n := code.Load(); n != 0 {
			return answer(req, int16(n)), nil, true
		}
		return nil, nil, false
	})
}

// A topic that is deleted and made again is delivered from its start: neither
// what was committed nor what was done counts in its new life.
func TestTopicIsMadeAgain(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		r.deliver(options(tries.counted))
		r.send(3, keyless)
		r.done(3)
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		if err := r.cluster.CreateTopic(testTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second) // it is noticed
		r.send(2, keyless)
		r.done(2)
		if a, b, c := tries.of("s0"), tries.of("s1"), tries.of("s2"); a != 2 || b != 2 || c != 1 {
			t.Errorf("%d %d %d tries", a, b, c)
		}
	})
}

// It may also happen while nobody delivers.
func TestTopicIsMadeAgainMeanwhile(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		d := r.deliver(options(tries.counted))
		r.send(3, keyless)
		r.done(3)
		d.Close()
		before := r.committed()
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		if err := r.cluster.CreateTopic(testTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		r.send(5, keyless)
		r.commit(before.base, before.encode()) // in case that the broker has dropped it with the topic
		r.deliver(options(tries.counted))
		r.done(5)
		if n := tries.of("s0"); n != 2 {
			t.Errorf("%d tries", n)
		}
	})
}

// A topic need not be there from the beginning.
func TestTopicComesLater(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		r.deliver(options(echo))
		none := r.deliver(options(echo), func(c *Config) { c.Topic, c.Logger = "none", nil })
		pass(10 * time.Second)
		none.Close()
		if err := r.cluster.CreateTopic(testTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		r.send(1, keyless)
		r.want("s0", "200 0")
	})
}

// New partitions are delivered soon.
func TestPartitionsAreAdded(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(echo))
		r.send(1, keyless)
		r.want("s0", "200 0")
		answer, err := r.client.API().CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: testTopic, Count: 3}},
		})
		if err != nil || answer.Errors[testTopic] != nil {
			t.Fatal(err, answer.Errors)
		}
		for i := range int32(3) {
			id := "new" + strconv.Itoa(int(i))
			r.eventually(func() bool {
				_, err := r.put(t.Context(), testTopic, i, r.request(id, "", id))
				return err == nil
			}, func() string { return "not produced" })
			r.want(id, "200 "+id)
		}
	})
}

// Leaders come and go, and nothing is lost, done twice, or out of order.
func TestLeadersMove(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		if err := r.cluster.DeleteTopic(testTopic); err != nil {
			t.Fatal(err)
		}
		if err := r.cluster.CreateTopic(testTopic, 3, nil); err != nil {
			t.Fatal(err)
		}
		var tries tally
		r.deliver(options(tries.counted))
		const total = 60
		for i := range total {
			if i%3 == 0 {
				for p := range int32(3) {
					if err := r.cluster.MoveTopicPartition(testTopic, p, (p+int32(i))%3); err != nil {
						t.Fatal(err)
					}
				}
			}
			r.eventually(func() bool {
				_, err := r.put(t.Context(), testTopic, int32(i%3), r.request("s"+strconv.Itoa(i), "key", strconv.Itoa(i)))
				return err == nil
			}, func() string { return "not produced" })
			pass(300 * time.Millisecond)
		}
		for i := range total {
			id := "s" + strconv.Itoa(i)
			r.want(id, fmt.Sprintf("200 %d", i))
			if n := tries.of(id); n != 1 {
				t.Errorf("%s was tried %d times", id, n)
			}
		}
	}, kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094))
}

// What retention takes before it is done is gone, and what is left is done.
func TestRetention(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries tally
		r.send(10, keyless)
		r.commit(2, "")
		if err := r.cluster.DeleteRecords(testTopic, 0, 5); err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if tries.add(req) == 1 && req.Header.Get(HeaderStreamID) == "s5" {
				<-release
			}
			return echo(w, req)
		}, func(o *Options) { o.Concurrency = 1 }), func(c *Config) { c.MaxBytes = 1 })
		r.eventually(func() bool { return tries.of("s5") == 1 }, func() string { return "no try" })
		// The reader holds all ten by now, or as much as came in one answer; what
		// comes now is read when there is room again, and gone by then.
		for i := range 5 {
			if _, err := r.put(t.Context(), testTopic, 0, r.request("late"+strconv.Itoa(i), "", "x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.cluster.DeleteRecords(testTopic, 0, 14); err != nil {
			t.Fatal(err)
		}
		close(release)
		r.done(15)
		if tries.of("s2") != 0 || tries.of("s5") != 1 || tries.of("s9") != 1 || tries.of("late0") != 0 || tries.of("late4") != 1 {
			t.Errorf("%d %d %d %d %d", tries.of("s2"), tries.of("s5"), tries.of("s9"), tries.of("late0"), tries.of("late4"))
		}
	})
}

// A log that ends before what was committed lost its end: what comes now is new.
func TestLogLostItsEnd(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.send(3, keyless)
		r.commit(100, "")
		r.deliver(options(echo))
		r.done(3)
		if _, err := r.put(t.Context(), testTopic, 0, r.request("new", "", "x")); err != nil {
			t.Fatal(err)
		}
		r.want("new", "200 x")
		r.done(4)
		if told := r.replies()["s0"]; len(told) > 0 {
			t.Errorf("%v", told)
		}
	})
}

// A partition that cannot be read stands, and goes on when it can be.
func TestPartitionCannotBeRead(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var code atomic.Int64
		r.refuse(kmsg.Fetch, &code, func(req kmsg.Request, code int16) kmsg.Response {
			answer := req.ResponseKind().(*kmsg.FetchResponse)
			for _, topic := range req.(*kmsg.FetchRequest).Topics {
				at := kmsg.NewFetchResponseTopic()
				at.Topic, at.TopicID = topic.Topic, topic.TopicID
				for _, p := range topic.Partitions {
					ap := kmsg.NewFetchResponseTopicPartition()
					ap.Partition, ap.ErrorCode = p.Partition, code
					at.Partitions = append(at.Partitions, ap)
				}
				answer.Topics = append(answer.Topics, at)
			}
			return answer
		})
		var tries tally
		r.deliver(options(tries.counted))
		r.send(1, keyless)
		r.want("s0", "200 0")
		for _, n := range []kafka.Error{kafka.InvalidMessage, kafka.NotLeaderForPartition, kafka.OffsetOutOfRange} {
			code.Store(int64(n))
			pass(2 * fetchWait) // a fetch that is held has begun before
			id := "s" + strconv.Itoa(int(n))
			if _, err := r.put(t.Context(), testTopic, 0, r.request(id, "", id)); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Second)
			if n := tries.of(id); n != 0 {
				t.Errorf("%d tries of what cannot be read", n)
			}
			code.Store(0)
			r.want(id, "200 "+id)
		}
	})
}

// What nobody can read is left out, and a partition that gave an error rests.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := offline()
		d.reader = newReader(d)
		d.queue.assign(0, progress{}, newWindow(0), false)
		topic := broker.Topic{Name: testTopic}
		d.reader.take(topic, &broker.Fetched{Partition: 0, Next: 5, Err: broker.ErrBatchTooLarge}, nil)
		if at, ok := d.queue.wanted(0); at != 5 || !ok || d.reader.rests(0) {
			t.Errorf("%d %t", at, ok)
		}
		d.reader.take(topic, &broker.Fetched{Partition: 0, Err: broker.ErrUnknownTopicID}, nil)
		if !d.reader.rests(0) {
			t.Error("a partition that gave an error is asked again at once")
		}
		pass(rest)
		if d.reader.rests(0) {
			t.Error("it rests for ever")
		}
	})
}
