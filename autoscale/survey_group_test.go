package autoscale

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// consume has a member of the group work on records, one after the other, and
// commit after each that gave true.
func (c *cluster) consume(work func(*kgo.Record) bool, options ...kgo.Opt) (leave func()) {
	c.t.Helper()
	member := c.kgo(append([]kgo.Opt{
		kgo.ConsumeTopics(orders), kgo.ConsumerGroup(workers), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Second),
	}, options...)...)
	ctx, cancel := context.WithCancel(c.t.Context())
	var working sync.WaitGroup
	working.Go(func() {
		for ctx.Err() == nil {
			for _, r := range member.PollRecords(ctx, 1).Records() {
				if work(r) && ctx.Err() == nil {
					c.commitAs(ctx, member, r)
				}
			}
		}
	})
	return func() {
		cancel()
		working.Wait()
		member.Close()
	}
}

// commitAs commits a record. The client's own call waits for a rebalance by a
// mutex, at which no virtual time passes.
func (c *cluster) commitAs(ctx context.Context, member *kgo.Client, r *kgo.Record) {
	q := kmsg.NewPtrOffsetCommitRequest()
	q.Group = workers
	q.MemberID, q.Generation = member.GroupMetadata()
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = orders
	topic.TopicID = c.TopicInfo(orders).TopicID
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Partition, partition.Offset = r.Partition, r.Offset+1
	topic.Partitions = append(topic.Partitions, partition)
	q.Topics = append(q.Topics, topic)
	_, _ = q.RequestWith(ctx, member) // refused in a rebalance
}

// Members and their work are seen.
func TestSurveySeesMembers(t *testing.T) {
	of := Watched{Topic: orders, Group: workers}
	for name, options := range map[string][]kgo.Opt{
		"of the older protocol": nil,
		"of the newer protocol": {kgo.ServerSideBalancer()},
	} {
		bubble(t, "work time, "+name, func(t *testing.T) {
			c := newCluster(t)
			c.topic(orders, 4)
			for p := range int32(4) {
				c.write(orders, p, 300)
			}
			w := c.watch(of)
			if m := w.next(); m.Members != 0 || m.WorkTime != 0 {
				t.Fatalf("%+v", m)
			}
			work := func(*kgo.Record) bool { <-time.After(200 * time.Millisecond); return true }
			defer c.consume(work, options...)()
			defer c.consume(work, options...)()
			pass(90 * time.Second)
			m := w.fresh()
			if m.Members != 2 {
				t.Errorf("%d members", m.Members)
			}
			if m.WorkTime < 190*time.Millisecond || m.WorkTime > 220*time.Millisecond {
				t.Errorf("a work time of %s", m.WorkTime)
			}
			for i, p := range m.Partitions {
				if p.Stalled > 40*time.Second {
					t.Errorf("partition %d stands still for %s", i, p.Stalled)
				}
			}
		})
	}
	bubble(t, "a partition that stands still", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		w := c.watch(of)
		pass(time.Minute)
		if m := w.fresh(); m.Partitions[0].Stalled != 0 {
			t.Fatalf("it stands still though nobody has it: %+v", m)
		}
		good := make(chan bool)
		leave := c.consume(func(*kgo.Record) bool { return <-good })
		pass(time.Minute)
		m := w.fresh()
		if s := m.Partitions[0].Stalled; s < 45*time.Second || s > 65*time.Second || m.Partitions[1].Stalled != 0 {
			t.Fatalf("%+v", m)
		}
		c.cut(true)
		pass(time.Minute)
		if s := w.fresh().Partitions[0].Stalled; s > 70*time.Second {
			t.Fatalf("what is unknown stands still: %s", s)
		}
		c.cut(false)
		good <- true
		pass(10 * time.Second)
		if m = w.fresh(); m.Partitions[0].Stalled > 12*time.Second || m.Partitions[0].Done != 1 {
			t.Fatalf("%+v", m)
		}
		close(good)
		leave()
		pass(15 * time.Second)
		if m = w.fresh(); m.Members != 0 {
			t.Fatalf("%d members", m.Members)
		}
	})
}

// The oldest record's age is known, whether somebody saw it come or not.
func TestSurveyTellsTheOldest(t *testing.T) {
	about := func(t *testing.T, m Measurement, since time.Time) {
		t.Helper()
		want := m.At.Sub(since)
		if d := m.Oldest - want; d < -3*time.Second || d > 3*time.Second {
			t.Fatalf("the oldest waits for %s, want %s", m.Oldest, want)
		}
	}
	bubble(t, "that came before anybody looked", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		fetches := 0
		c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			fetches++
			return nil, nil, false
		})
		began := time.Now()
		for range 10 {
			c.write(orders, 0, 1)
			pass(time.Minute)
		}
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.next()
		about(t, w.next(), began)
		c.commit(workers, orders, 0, 4)
		w.fresh()
		about(t, w.fresh(), began.Add(4*time.Minute))
		w.skip(30)
		if fetches > 4 { // two of them look whether the records are there
			t.Fatalf("%d fetches", fetches)
		}
		c.commit(workers, orders, 0, 10)
		if m := w.fresh(); m.Oldest != 0 {
			t.Fatalf("nothing waits for %s", m.Oldest)
		}
	})
	bubble(t, "that was seen to come", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.next()
		began := time.Now()
		for range 300 {
			c.write(orders, 0, 1)
			pass(2 * time.Second)
		}
		about(t, w.fresh(), began)
		c.commit(workers, orders, 0, 150)
		about(t, w.fresh(), began.Add(300*time.Second))
		c.commit(workers, orders, 0, 290)
		about(t, w.fresh(), began.Add(580*time.Second))
	})
}

// Many partitions of many groups are few requests.
func TestSurveyAsksAtOnce(t *testing.T) {
	count := func(c *cluster) (counts map[int16]int, reset func()) {
		counts = make(map[int16]int)
		var mu sync.Mutex
		c.Control(func(q kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if m, ok := q.(*kmsg.MetadataRequest); !ok || len(m.Topics) > 0 { // and not the connections'
				counts[q.Key()]++
			}
			return nil, nil, false
		})
		return counts, func() { mu.Lock(); defer mu.Unlock(); clear(counts) }
	}
	fill := func(c *cluster) []*watching {
		var all []*watching
		for i := range 20 {
			topic := fmt.Sprint("topic-", i)
			c.topic(topic, 6)
			c.write(topic, 1, 3)
			c.commit(fmt.Sprint("group-", i), topic, 1, 1)
			all = append(all, c.watch(Watched{Topic: topic, Group: fmt.Sprint("group-", i)}),
				c.watch(Watched{Topic: topic, Group: "shared"}))
		}
		return all
	}
	bubble(t, "three brokers", func(t *testing.T) {
		c := newCluster(t, kfake.Ports(9092, 9093, 9094), kfake.NumBrokers(3))
		all := fill(c)
		pass(10 * time.Second)
		counts, reset := count(c)
		reset()
		const looks = 10
		pass(looks * 2 * time.Second)
		for key, most := range map[kmsg.Key]int{
			kmsg.Metadata: looks, kmsg.OffsetFetch: 3 * looks, kmsg.ListOffsets: 6 * looks, kmsg.FindCoordinator: 0,
		} {
			if got := counts[int16(key)]; got > most || got < most-6 {
				t.Errorf("%d of %s in %d looks", got, key.Name(), looks)
			}
		}
		for i, w := range all {
			w.want(w.fresh(), 0, 2+int64(i%2), 0, 0, 0, 0)
		}
	})
	bubble(t, "an older broker, which takes one group at a time", func(t *testing.T) {
		c := newCluster(t, kfake.MaxVersions(kversion.V2_4_0()))
		for i, w := range fill(c) {
			w.want(w.fresh(), 0, 2+int64(i%2), 0, 0, 0, 0)
		}
	})
}
