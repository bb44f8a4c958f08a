package autoscale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const (
	orders  = "orders"
	workers = "workers"
)

func (w *watching) want(m Measurement, backlog ...int64) {
	w.t.Helper()
	if got := backlogs(m); !slices.Equal(got, backlog) {
		w.t.Fatalf("backlogs %v, want %v: %+v", got, backlog, m)
	}
}

// What waits, in each case in which others count wrong.
func TestSurveyCountsWhatWaits(t *testing.T) {
	of := Watched{Topic: orders, Group: workers}
	latest := Watched{Topic: orders, Group: workers, FromLatest: true}

	bubble(t, "a group that was never seen has all before it", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		w := c.watch(of)
		m := w.next()
		w.want(m, 5, 0)
		if m.Members != 0 || m.WorkTime != 0 {
			t.Fatalf("%+v", m)
		}
	})
	bubble(t, "a partition without a commit is not -1", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		c.write(orders, 1, 3)
		c.commit(workers, orders, 0, 4)
		w := c.watch(of)
		w.want(w.next(), 1, 3)
	})
	bubble(t, "members that begin at the end have what came since", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		w := c.watch(latest)
		w.want(w.next(), 0)
		c.write(orders, 0, 2)
		w.want(w.fresh(), 2)
		c.write(orders, 0, 1)
		w.want(w.fresh(), 3)
		c.commit(workers, orders, 0, 7)
		w.want(w.fresh(), 1)
	})
	bubble(t, "retention overtook the commit", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 10)
		c.commit(workers, orders, 0, 2)
		w := c.watch(of)
		before := w.next()
		w.want(before, 8)
		if err := c.DeleteRecords(orders, 0, 7); err != nil {
			t.Fatal(err)
		}
		after := w.fresh()
		w.want(after, 3)
		if before.Partitions[0].Done != after.Partitions[0].Done {
			t.Fatal("what retention took counts as done")
		}
		if err := c.DeleteRecords(orders, 0, 10); err != nil {
			t.Fatal(err)
		}
		w.want(w.fresh(), 0)
	})
	bubble(t, "a partition without a leader is unknown", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		c.write(orders, 1, 5)
		w := c.watch(of)
		w.want(w.next(), 5, 5)
		c.leaders(orders, 0, -1)
		w.want(w.fresh(), 5, Unknown)
	})
	bubble(t, "ends that are not told are unknown", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		w := c.watch(of)
		w.want(w.next(), 5, 0)
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition})
		m := w.fresh()
		w.want(m, 5, Unknown)
		if p := m.Partitions[1]; p.Produced != Unknown || p.Done != Unknown {
			t.Fatalf("%+v", p)
		}
	})
	bubble(t, "commits that are not told are unknown", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 5)
		w := c.watch(of)
		w.want(w.next(), 5, 0)
		before := w.next()
		c.ControlKey(int16(kmsg.OffsetFetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			answer := q.ResponseKind().(*kmsg.OffsetFetchResponse)
			for _, g := range q.(*kmsg.OffsetFetchRequest).Groups {
				told := kmsg.NewOffsetFetchResponseGroup()
				told.Group, told.ErrorCode = g.Group, kerr.CoordinatorLoadInProgress.Code
				answer.Groups = append(answer.Groups, told)
			}
			return answer, nil, true
		})
		m := w.fresh()
		w.want(m, Unknown, Unknown)
		if p := m.Partitions[0]; p.Done != Unknown || p.Produced != before.Partitions[0].Produced {
			t.Fatalf("%+v", p)
		}
	})
	bubble(t, "a broker that is down is unknown, and known again", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		w := c.watch(of)
		w.want(w.next(), 5)
		c.cut(true)
		w.want(w.fresh(), Unknown)
		w.want(w.fresh(), Unknown)
		c.cut(false)
		for range 5 {
			if m := w.fresh(); m.Partitions[0].Backlog == 5 {
				return
			}
		}
		t.Fatal("not known again")
	})
	bubble(t, "a broker that is silent is unknown", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		w := c.watch(of)
		w.want(w.next(), 5)
		c.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			return nil, nil, true
		})
		w.want(w.fresh(), Unknown)
	})
	bubble(t, "a broker in the place of another, where the topic is empty", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		c.commit(workers, orders, 0, 3)
		w := c.watch(of)
		w.want(w.next(), 2)
		restore := c.endsAt(0)
		for range 5 {
			w.want(w.fresh(), Unknown)
		}
		restore()
		w.want(w.fresh(), 2)
	})
	bubble(t, "records that were lost for good", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		c.commit(workers, orders, 0, 1)
		w := c.watch(of)
		w.want(w.next(), 4)
		c.endsAt(3)
		w.want(w.fresh(), Unknown)
		pass(lowerFor)
		m := w.fresh()
		w.want(m, 2)
		if p := m.Partitions[0]; p.Produced != 5 {
			t.Fatalf("produced counts back to %d", p.Produced)
		}
	})
	bubble(t, "a topic that was made anew", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 0, 100)
		c.commit(workers, orders, 0, 60)
		w := c.watch(of)
		w.want(w.next(), 40, 0)
		c.remake(orders, 1)
		c.write(orders, 0, 70)
		c.commit(workers, orders, 0, 60) // as is left where the coordinator forgets nothing
		m := w.fresh()
		w.want(m, 70)
		if p := m.Partitions[0]; p.Produced != 170 {
			t.Fatalf("produced %d", p.Produced)
		}
		c.commit(workers, orders, 0, 5)
		m = w.fresh()
		w.want(m, 65)
		if p := m.Partitions[0]; p.Done != 65 {
			t.Fatalf("done %d", p.Done)
		}
	})
	bubble(t, "commits that expired", func(t *testing.T) {
		for name, tt := range map[string]struct {
			of   Watched
			want int64
		}{"are gone for who begins at the oldest record": {of, 6}, "stay where others would begin at the end": {latest, 2}} {
			c := newCluster(t)
			c.topic(orders, 1)
			c.write(orders, 0, 5)
			c.commit(workers, orders, 0, 4)
			w := c.watch(tt.of)
			w.want(w.next(), 1)
			if _, err := c.admin.DeleteGroup(t.Context(), workers); err != nil {
				t.Fatal(name, err)
			}
			c.write(orders, 0, 1)
			w.want(w.fresh(), tt.want)
			c.survey.Close()
			c.writer.Close()
			c.client.Close()
			c.Close()
		}
	})
	bubble(t, "partitions that are added", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 5)
		w := c.watch(of)
		w.want(w.next(), 5)
		if _, err := c.admin.CreatePartitions(t.Context(), 2, orders); err != nil {
			t.Fatal(err)
		}
		w.want(w.fresh(), 5, 0, 0)
		c.writer.PurgeTopicsFromClient(orders)
		c.write(orders, 2, 3)
		w.want(w.fresh(), 5, 0, 3)
	})
	bubble(t, "a topic that is missing has nothing, until it is there", func(t *testing.T) {
		c := newCluster(t)
		w := c.watch(of)
		m := w.next()
		w.want(m, 0)
		if m.Members != 0 {
			t.Fatalf("%+v", m)
		}
		h := History{Looks: []Measurement{m}}
		if d := Decide(Config{}, h); d.Workers != 0 {
			t.Fatalf("it needs %d workers: %s", d.Workers, d.Reason)
		}
		c.topic(orders, 2)
		c.write(orders, 1, 3)
		w.want(w.fresh(), 0, 3)
	})
	bubble(t, "a topic that has gone is unknown for a while", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 2)
		c.write(orders, 1, 3)
		w := c.watch(of)
		w.want(w.next(), 0, 3)
		if _, err := c.admin.DeleteTopic(t.Context(), orders); err != nil {
			t.Fatal(err)
		}
		w.want(w.fresh(), Unknown, Unknown)
		pass(goneAfter)
		w.want(w.fresh(), 0)
	})
	bubble(t, "what is done ahead of the commit", func(t *testing.T) {
		c := newCluster(t)
		c.survey.config.Ahead = func(offset int64, metadata string) (int64, int64) {
			if metadata != "ahead" || offset != 2 {
				t.Errorf("metadata %q of offset %d", metadata, offset)
			}
			return 3, 4
		}
		c.topic(orders, 1)
		c.write(orders, 0, 10)
		c.commitWith(workers, orders, 0, 2, "ahead")
		w := c.watch(of)
		w.want(w.next(), 1)
	})
}

// leaders has the broker tell who leads each partition of a topic.
func (c *cluster) leaders(topic string, leaders ...int32) {
	c.t.Helper()
	known, err := c.client.Topic(c.t.Context(), topic)
	if err != nil {
		c.t.Fatal(err)
	}
	c.ControlKey(int16(kmsg.Metadata), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if len(q.(*kmsg.MetadataRequest).Topics) == 0 {
			return nil, nil, false // the connections', which ask for all
		}
		answer := q.ResponseKind().(*kmsg.MetadataResponse)
		told := kmsg.NewMetadataResponseTopic()
		told.Topic, told.TopicID = &topic, known.ID
		for i, leader := range leaders {
			partition := kmsg.NewMetadataResponseTopicPartition()
			partition.Partition, partition.Leader = int32(i), leader
			told.Partitions = append(told.Partitions, partition)
		}
		answer.Topics = append(answer.Topics, told)
		return answer, nil, true
	})
}

// endsAt has the broker tell that all partitions end there, as one that has
// forgotten would.
func (c *cluster) endsAt(offset int64) (restore func()) {
	on := true
	c.ControlKey(int16(kmsg.ListOffsets), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !on {
			return nil, nil, false
		}
		answer := q.ResponseKind().(*kmsg.ListOffsetsResponse)
		for _, t := range q.(*kmsg.ListOffsetsRequest).Topics {
			told := kmsg.NewListOffsetsResponseTopic()
			told.Topic = t.Topic
			for _, p := range t.Partitions {
				partition := kmsg.NewListOffsetsResponseTopicPartition()
				partition.Partition = p.Partition
				if p.Timestamp == -1 {
					partition.Offset = offset
				} else {
					partition.Offset = 0
				}
				told.Partitions = append(told.Partitions, partition)
			}
			answer.Topics = append(answer.Topics, told)
		}
		return answer, nil, true
	})
	return func() { on = false }
}

// remake deletes a topic and makes another of its name.
func (c *cluster) remake(name string, partitions int32) {
	c.t.Helper()
	if _, err := c.admin.DeleteTopic(c.t.Context(), name); err != nil {
		c.t.Fatal(err)
	}
	c.writer.PurgeTopicsFromClient(name)
	c.topic(name, partitions)
}

// Who is told that it is not known what waits is told why.
func TestSurveySaysWhyItIsNotKnown(t *testing.T) {
	for why, spoil := range map[string]func(c *cluster){
		"partition 0 has no leader":                             func(c *cluster) { c.leaders(orders, -1) },
		"partition 0 ends at 3, and the group has committed 10": func(c *cluster) { c.commit(workers, orders, 0, 10) },
	} {
		bubble(t, why, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			c := newCluster(t)
			c.survey.config.Logger = zap.New(core)
			c.topic(orders, 1)
			c.write(orders, 0, 3)
			w := c.watch(Watched{Topic: orders, Group: workers})
			w.next()
			spoil(c)
			w.want(w.fresh(), Unknown)
			if all := logs.All(); len(all) != 1 || !strings.HasPrefix(fmt.Sprint(all[0].ContextMap()["error"]), why) {
				t.Fatalf("warned of %v", all)
			}
		})
	}
}

// A topic whose name is misspelt looks like one with nothing in it, so it is said once.
func TestSurveyMissesATopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		c := newCluster(t)
		c.survey.config.Logger = zap.New(core)
		c.topic(orders, 1)
		c.watch(Watched{Topic: orders, Group: workers})
		c.watch(Watched{Topic: "oders", Group: workers})
		pass(missedAfter - time.Second)
		if n := logs.Len(); n != 0 {
			t.Fatalf("%d warnings before it can be there", n)
		}
		pass(10 * time.Minute)
		if all := logs.All(); len(all) != 1 || all[0].ContextMap()["topic"] != "oders" {
			t.Fatalf("warned of %v", all)
		}
	})
}

func TestSurveySeesHoles(t *testing.T) {
	transact := func(c *cluster, end kgo.TransactionEndTry, n int) {
		writer := c.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("writer"))
		if err := writer.BeginTransaction(); err != nil {
			c.t.Fatal(err)
		}
		for range n {
			if err := writer.ProduceSync(c.t.Context(), &kgo.Record{Topic: orders, Value: []byte("value")}).FirstErr(); err != nil {
				c.t.Fatal(err)
			}
		}
		if err := writer.EndTransaction(c.t.Context(), end); err != nil {
			c.t.Fatal(err)
		}
		writer.Close()
	}
	bubble(t, "a marker behind the last record", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		transact(c, kgo.TryCommit, 3)
		c.commit(workers, orders, 0, 3)
		w := c.watch(Watched{Topic: orders, Group: workers})
		m := w.next()
		w.want(m, 0)
		if m.Oldest != 0 {
			t.Fatalf("the oldest waits for %s", m.Oldest)
		}
		c.write(orders, 0, 2)
		w.want(w.fresh(), 2)
	})
	bubble(t, "records that were aborted", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		c.write(orders, 0, 2)
		transact(c, kgo.TryAbort, 3)
		c.write(orders, 0, 1)
		c.commit(workers, orders, 0, 1)
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.want(w.next(), 2)
	})
}

// A look comes as soon as a record does.
func TestSurveyWakes(t *testing.T) {
	bubble(t, "at the first record", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 4)
		w := c.watch(Watched{Topic: orders, Group: workers})
		other := c.watch(Watched{Topic: orders, Group: "others"})
		w.want(w.next(), 0, 0, 0, 0)
		other.next()
		for range 20 {
			m, err := w.Next(t.Context(), Want{Wake: true})
			if err != nil {
				t.Fatal(err)
			}
			w.want(m, 0, 0, 0, 0)
		}
		pass(time.Second) // between two looks
		came := make(chan Measurement)
		go func() {
			m, _ := w.Next(t.Context(), Want{Wake: true})
			came <- m
		}()
		pass(100 * time.Millisecond)
		began := time.Now()
		c.write(orders, 2, 1)
		m := <-came
		w.want(m, 0, 0, 1, 0)
		if took := m.At.Sub(began); took > 0 {
			t.Fatalf("it took %s", took)
		}
	})
	bubble(t, "not who does not ask for it", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		fetches := 0
		c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			fetches++
			return nil, nil, false
		})
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.skip(10)
		if fetches > 0 {
			t.Fatalf("%d fetches", fetches)
		}
	})
	bubble(t, "when the topic is made", func(t *testing.T) {
		c := newCluster(t)
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.want(w.next(), 0)
		c.topic(orders, 1)
		m, err := w.Next(t.Context(), Want{Wake: true})
		if err != nil {
			t.Fatal(err)
		}
		w.want(m, 0)
		c.write(orders, 0, 1)
		began := time.Now()
		if m, err = w.Next(t.Context(), Want{Wake: true}); err != nil || m.At.After(began) {
			t.Fatal(m, err, m.At.Sub(began))
		}
		w.want(m, 1)
	})
}

// Who wants to look again soon does not wait for the usual time, and nobody else
// looks more often for that.
func TestSurveyLooksAgainSoon(t *testing.T) {
	bubble(t, "at a topic that is not there", func(t *testing.T) {
		c := newCluster(t)
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.next()
		began := time.Now()
		for range 4 {
			if _, err := w.Next(t.Context(), Want{Within: 500 * time.Millisecond}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < time.Second {
			t.Fatalf("four looks within %s", took)
		}
	})
	bubble(t, "one of two", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		w := c.watch(Watched{Topic: orders, Group: workers})
		other := c.watch(Watched{Topic: orders, Group: "others"})
		w.next()
		other.next()
		w.next() // of a tick, from which both count
		before := other.next()
		for range 3 {
			began := time.Now()
			if _, err := w.Next(t.Context(), Want{Within: 500 * time.Millisecond}); err != nil || time.Since(began).Round(10*time.Millisecond) != 500*time.Millisecond {
				t.Fatal(err, time.Since(began))
			}
		}
		usual := w.next()
		m := other.next()
		if !m.At.Equal(usual.At) || m.At.Sub(before.At).Round(10*time.Millisecond) != c.survey.config.Every {
			t.Fatalf("the other was looked at after %s, this one after %s", m.At.Sub(before.At), usual.At.Sub(before.At))
		}
	})
}

// Who waits for a look that will not come is told.
func TestSurveyEnds(t *testing.T) {
	bubble(t, "all of it", func(t *testing.T) {
		c := newCluster(t)
		c.topic(orders, 1)
		w := c.watch(Watched{Topic: orders, Group: workers})
		w.next()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Next(ctx, Want{Wake: true}); err == nil {
			t.Fatal("a look after the end of the context")
		}
		go func() { pass(time.Millisecond); w.Close() }()
		if _, err := w.Next(t.Context(), Want{Wake: true}); err == nil {
			t.Fatal("a look after the end of the watch")
		}
		again := c.watch(Watched{Topic: orders, Group: workers})
		again.next()
		go func() { pass(time.Millisecond); c.survey.Close() }()
		if _, err := again.Next(t.Context(), Want{Wake: true}); err == nil {
			t.Fatal("a look after the end of the survey")
		}
	})
}
