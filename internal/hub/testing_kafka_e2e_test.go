//go:build e2e

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// patience bounds whatever a test waits for on a real Kafka.
const patience = time.Minute

// kafkaRig is a reply topic on a real Kafka, a hub that reads it, workers that
// write to it and an operator.
type kafkaRig struct {
	t       *testing.T
	ctx     context.Context
	cluster *kafkatest.Cluster
	topic   string
	client  *broker.Client // the hub's, whose network can be cut
	hub     *Hub
	worker  *kgo.Client
	admin   *kadm.Client

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

// newKafkaRig makes a topic with the given settings, and a hub that is a member
// of its group.
func newKafkaRig(t *testing.T, cluster *kafkatest.Cluster, topic string, partitions int32, copies int16, settings map[string]*string) *kafkaRig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	r := &kafkaRig{t: t, ctx: ctx, cluster: cluster, topic: topic}
	r.admin = kadm.NewClient(r.newWorker())
	r.make(partitions, copies, settings)
	r.worker = r.newWorker()
	r.client = broker.New(broker.Config{Addresses: cluster.Addresses(), Dial: r.dial})
	t.Cleanup(r.client.Close)
	r.hub = r.newHub(Config{})
	return r
}

// newHub makes a hub that reads on demand.
func (r *kafkaRig) newHub(c Config) *Hub {
	c.Broker, c.Topic = r.client, r.topic
	c.Logger = zaptest.NewLogger(r.t, zaptest.Level(zap.WarnLevel))
	h := New(c)
	r.t.Cleanup(h.Close)
	return h
}

func (r *kafkaRig) newWorker(options ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(r.cluster.Addresses()...), kgo.MetadataMinAge(100*time.Millisecond))...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	return client
}

func (r *kafkaRig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	down := r.down
	r.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.conns = append(r.conns, conn)
	}
	return conn, err
}

// cutOff takes the brokers away from the hub, or gives them back.
func (r *kafkaRig) cutOff(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

// until asks again and again, as long as a test has patience.
func (r *kafkaRig) until(what string, ask func() error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// make makes the topic, also when one of that name is just being deleted.
func (r *kafkaRig) make(partitions int32, copies int16, settings map[string]*string) {
	r.t.Helper()
	r.until("make the topic", func() error {
		_, err := r.admin.CreateTopic(r.ctx, partitions, copies, settings, r.topic)
		return err
	})
	r.led(partitions)
}

// led waits until so many partitions have leaders, as a broker sees it.
func (r *kafkaRig) led(partitions int32) {
	r.t.Helper()
	r.until("find leaders", func() error {
		all, err := r.admin.ListTopics(r.ctx, r.topic)
		if err != nil {
			return err
		}
		is := all[r.topic]
		if is.Err != nil || len(is.Partitions) != int(partitions) {
			return fmt.Errorf("%d partitions of %d: %w", len(is.Partitions), partitions, is.Err)
		}
		for _, p := range is.Partitions {
			if p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d is led by %d: %w", p.Partition, p.Leader, p.Err)
			}
		}
		return nil
	})
}

// stream gives a new stream as its token would describe it.
func (r *kafkaRig) stream() Stream {
	r.t.Helper()
	place, err := r.hub.Place(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return Stream{
		ID: record.NewID(place.Partition, place.Partitions), Topic: place.Topic,
		Partition: place.Partition, Partitions: place.Partitions, Floor: place.Floor, Incarnation: place.Incarnation,
		Issued: time.Now(), Expires: time.Now().Add(time.Hour),
	}
}

func (r *kafkaRig) streams(n int) []Stream {
	all := make([]Stream, n)
	for i := range all {
		all[i] = r.stream()
	}
	return all
}

// reply is the record of a reply, on the partition that the token names.
func (r *kafkaRig) reply(s Stream, body string, more bool) *kgo.Record {
	rec := record.Reply{StreamID: s.ID, Status: 200, Body: []byte(body), More: more}.Record()
	k := &kgo.Record{Topic: r.topic, Partition: s.Partition, Key: []byte(s.ID), Value: rec.Value}
	for _, h := range rec.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return k
}

// put has a worker that follows kafka_replyPartition answer.
func (r *kafkaRig) put(records ...*kgo.Record) {
	r.t.Helper()
	worker := r.newWorker(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := worker.ProduceSync(r.ctx, records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// story is what a client has seen of a stream: replies and gaps in their order.
type story struct {
	told []string
	gaps []record.Gap
	end  record.State
	err  error
}

func (s story) String() string {
	return fmt.Sprintf("%s: %s %v", s.end, strings.Join(s.told, " "), s.err)
}

// read follows a stream to its end, and says when it has caught up.
func (r *kafkaRig) read(sub *Subscription, caughtUp func()) (s story) {
	defer sub.Close()
	for {
		e, err := sub.Next(r.ctx)
		switch {
		case errors.Is(err, io.EOF):
			return s
		case err != nil:
			s.err = err
			return s
		case e.Kind == KindCaughtUp:
			caughtUp()
		}
		s.add(e)
	}
}

func (s *story) add(e Event) {
	switch e.Kind {
	case KindReply:
		s.told = append(s.told, string(e.Entry.Reply.Body))
	case KindGap:
		s.told, s.gaps = append(s.told, "gap:"+e.Gap.Reason), append(s.gaps, e.Gap)
	case KindEnd:
		s.end = e.End.Status
	}
}

// readAll follows streams to their ends, all at once. It returns when all have
// caught up.
func (r *kafkaRig) readAll(h *Hub, streams []Stream) (wait func() []story) {
	stories := make([]story, len(streams))
	var clients, begun sync.WaitGroup
	for i, s := range streams {
		sub := h.Follow(s, nil)
		begun.Add(1)
		caughtUp := sync.OnceFunc(begun.Done)
		clients.Go(func() {
			defer caughtUp()
			stories[i] = r.read(sub, caughtUp)
		})
	}
	begun.Wait()
	return func() []story {
		clients.Wait()
		return stories
	}
}

// wantStories compares what was told with what is wanted.
func wantStories(t *testing.T, got []story, want string) {
	t.Helper()
	wrong := 0
	for i, s := range got {
		if told := s.String(); told != want+" <nil>" {
			if wrong++; wrong <= 5 {
				t.Errorf("stream %d: %s; want %s", i, told, want)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d streams are wrong", wrong, len(got))
	}
}
