package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// rig is a cluster with a reply topic and a hub that reads it.
type rig struct {
	*gatewayCluster
	client     *broker.Client
	producer   *broker.Client // on a network that does not go down
	hub        *Hub
	partitions int32
}

// newRig makes a cluster with a topic of so many partitions, and a hub that is
// not a member of any group: what it reads is read on demand.
func newRig(t *testing.T, partitions int32, options ...kfake.Opt) *rig {
	t.Helper()
	c := newGatewayCluster(t, options...)
	if err := c.CreateTopic(gatewayTopic, partitions, map[string]string{"message.timestamp.type": "LogAppendTime"}); err != nil {
		t.Fatal(err)
	}
	r := &rig{gatewayCluster: c, client: c.client(), partitions: partitions}
	r.producer = broker.New(broker.Config{Addresses: c.ListenAddrs(), Dial: c.network.DialContext})
	t.Cleanup(r.producer.Close)
	r.hub = r.newHub(Config{})
	return r
}

func (r *rig) newHub(c Config) *Hub {
	c.Broker, c.Topic = r.client, gatewayTopic
	h := New(c)
	r.t.Cleanup(h.Close)
	return h
}

// incarnation asks for the topic's.
func (r *rig) incarnation() uint32 {
	r.t.Helper()
	is, err := r.client.Topic(r.t.Context(), gatewayTopic)
	if err != nil {
		r.t.Fatal(err)
	}
	return is.ID.Incarnation()
}

// stream gives a stream in partition 0, from the log's start, that expires in ten minutes.
func (r *rig) stream(id string) Stream {
	r.t.Helper()
	return Stream{
		ID: id, Topic: gatewayTopic, Partitions: r.partitions, Incarnation: r.incarnation(),
		Issued: time.Now(), Expires: time.Now().Add(10 * time.Minute),
	}
}

// put produces replies to a partition and gives the offset of the first.
func (r *rig) put(partition int32, replies ...record.Reply) int64 {
	r.t.Helper()
	records := make([]record.Record, len(replies))
	for i, reply := range replies {
		records[i] = reply.Record()
	}
	return r.putRecords(partition, records...)
}

func (r *rig) putRecords(partition int32, records ...record.Record) int64 {
	r.t.Helper()
	batch := make([]kafka.Record, len(records))
	for i, rec := range records {
		batch[i] = kafka.Record{Key: kafka.NewBytes(rec.Key), Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}
	}
	answer, err := r.producer.API().Produce(r.t.Context(), &kafka.ProduceRequest{
		Topic: gatewayTopic, Partition: int(partition), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(batch...),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.BaseOffset
}

// putAt produces a reply whose time is the producer's, to a topic that takes
// such times: one that was recreated.
func (r *rig) putAt(partition int32, at time.Time, reply record.Reply) {
	r.t.Helper()
	rec := reply.Record()
	answer, err := r.producer.API().Produce(r.t.Context(), &kafka.ProduceRequest{
		Topic: gatewayTopic, Partition: int(partition), RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Time: at, Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// part is a reply that others follow, last one that ends its stream.
func part(id, body string) record.Reply {
	return record.Reply{StreamID: id, Status: 200, Body: []byte(body), More: true}
}

func last(id, body string) record.Reply {
	return record.Reply{StreamID: id, Status: 200, Body: []byte(body)}
}

func state(id string, s record.State) record.Reply {
	return record.Reply{StreamID: id, State: s, Body: []byte(`{"reason":"because","attempt":2}`)}
}

// follow subscribes until the test ends.
func (r *rig) follow(s Stream, from *Cursor) *Subscription {
	sub := r.hub.Follow(s, from)
	r.t.Cleanup(sub.Close)
	return sub
}

// tell describes an event in a few words, by which tests compare.
func tell(e Event, err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "eof"
	case errors.Is(err, context.DeadlineExceeded):
		return "silence"
	case err != nil:
		return err.Error()
	}
	switch e.Kind {
	case KindReply:
		return fmt.Sprintf("reply %s @%d/%d", e.Entry.Reply.Body, e.Cursor.Partition, e.Cursor.Offset)
	case KindStatus:
		return "status " + string(e.Entry.Reply.State)
	case KindGap:
		return "gap " + e.Gap.Reason
	case KindEnd:
		return fmt.Sprintf("end %s%s", e.End.Status, e.Cursor.Mark.suffix())
	case KindCaughtUp:
		return "caught up"
	}
	return fmt.Sprintf("event of kind %d", e.Kind)
}

// next gives the next event, and waits ten seconds for it.
func next(sub *Subscription) (Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return sub.Next(ctx)
}

// expect reads events and compares them with what is wanted.
func expect(t *testing.T, sub *Subscription, want ...string) {
	t.Helper()
	for i, w := range want {
		if got := tell(next(sub)); got != w {
			t.Fatalf("event %d of %q: %q", i, want, got)
		}
	}
}

// lonePartition gives a partition of a hub that has no broker: what a tail would
// bring comes from the test.
func lonePartition(t testing.TB) (*Hub, *partition) {
	t.Helper()
	h := New(Config{Broker: broker.New(broker.Config{Addresses: []string{"192.0.2.1:9092"}}), Topic: gatewayTopic})
	t.Cleanup(h.Close)
	h.mu.Lock()
	defer h.mu.Unlock()
	on := newTopic(h, gatewayTopic) // nobody asks for it
	h.topics[gatewayTopic] = on
	on.is, on.known = broker.Topic{Name: gatewayTopic, ID: broker.TopicID{1}, Leaders: []int32{-1}}, true
	on.version.Add(1)
	p := on.partition(0)
	p.found(0, 0, h.tick())
	return h, p
}

// crowdOf subscribes to so many streams that get nothing, until all have caught up.
func crowdOf(t testing.TB, p *partition, n int) []*Subscription {
	t.Helper()
	s := Stream{Topic: gatewayTopic, Partitions: 1, Incarnation: p.incarnation, Expires: time.Now().Add(12 * time.Hour)}
	subs := make([]*Subscription, n)
	for i := range subs {
		s.ID = record.NewID(0, 1)
		subs[i] = p.hub.Follow(s, nil)
	}
	// Each asks for the log's end, which a prober would find out.
	asked := map[bool]int{}
	for _, answered := range []bool{false, true} {
		if answered {
			p.fresh(p.window.next, p.hub.tick())
		}
		for _, sub := range subs {
			for {
				e, more, err := sub.look()
				if err != nil || more && e.Kind != KindCaughtUp {
					t.Fatal(e, err)
				}
				if !more {
					break
				}
				asked[answered]++
			}
			select {
			case <-sub.bell.wish:
			default:
			}
		}
	}
	if asked[false] != 0 || asked[true] != n {
		t.Fatalf("%d of %d have caught up, %d of them too early", asked[true], n, asked[false])
	}
	return subs
}
