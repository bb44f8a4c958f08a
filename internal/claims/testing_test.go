package claims

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// rig is a cluster in the test's bubble, whose clock and network are virtual.
type rig struct {
	t *testing.T
	*kfake.Cluster
	network kfake.VirtualNetwork
	writer  *broker.Client // on a network that does not go down

	mu    sync.Mutex
	down  func(address string) bool // nil: nothing is
	conns map[net.Conn]struct{}
}

// rigged runs a test in a bubble with a cluster of so many brokers.
func rigged(t *testing.T, brokers int, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, conns: make(map[net.Conn]struct{})}
		ports := []int{9092, 9093, 9094}[:brokers]
		var err error
		r.Cluster, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.Ports(ports...), kfake.ListenFn(r.network.Listen))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Cluster.Close)
		r.writer = broker.New(broker.Config{Addresses: r.ListenAddrs(), Dial: r.network.DialContext})
		t.Cleanup(r.writer.Close)
		test(t, r)
	})
}

func (r *rig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil && r.down(address) {
		return nil, errors.New("connection refused")
	}
	conn, err := r.network.DialContext(ctx, network, address)
	if err == nil {
		r.conns[conn] = struct{}{}
	}
	return conn, err
}

// cut takes the books' way to the cluster away, and mend gives it back.
func (r *rig) cut() { r.cutOff(func(string) bool { return true }) }

// cutOff breaks all connections, and refuses new ones to some addresses.
func (r *rig) cutOff(down func(address string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
	for conn := range r.conns {
		conn.Close()
	}
	clear(r.conns)
}

func (r *rig) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = nil
}

// create makes the claims topic.
func (r *rig) create(partitions int32) {
	r.t.Helper()
	if err := r.CreateTopic(Topic, partitions, map[string]string{"message.timestamp.type": "LogAppendTime"}); err != nil {
		r.t.Fatal(err)
	}
}

// book is one of the rig, and what it has logged.
type book struct {
	*Book
	logs *observer.ObservedLogs
}

// book makes a book that reads until the test ends.
func (r *rig) book(c Config) book {
	b := r.closed(c)
	b.Start(broker.TopicSpec{Name: Topic, Partitions: 2, Config: map[string]string{"message.timestamp.type": "LogAppendTime"}}, true)
	return b
}

// closed makes a book that does not read yet.
func (r *rig) closed(c Config) book {
	core, logs := observer.New(zap.DebugLevel)
	c.Broker = broker.New(broker.Config{Addresses: r.ListenAddrs(), Dial: r.dial})
	r.t.Cleanup(c.Broker.Close)
	c.Produce, c.Logger = r.produce, zap.New(core)
	b := New(c)
	r.t.Cleanup(b.Close)
	return book{b, logs}
}

// produce puts a record on the claims topic as Config.Produce has to.
func (r *rig) produce(ctx context.Context, placeBy []byte, rec record.Record) (Position, error) {
	t, err := r.writer.Topic(ctx, Topic)
	if err != nil {
		return Position{}, err
	}
	p := record.Partition(placeBy, t.Partitions())
	answer, err := r.writer.API().Produce(ctx, &kafka.ProduceRequest{
		Topic: Topic, Partition: int(p), RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Key: kafka.NewBytes(rec.Key), Value: kafka.NewBytes(rec.Value)}),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return Position{}, err
	}
	return Position{Partition: p, Offset: answer.BaseOffset, Incarnation: t.ID.Incarnation()}, nil
}

// put is produce for a test that goes on.
func (r *rig) put(rec record.Record) {
	r.t.Helper()
	if _, err := r.produce(r.t.Context(), []byte("k"), rec); err != nil {
		r.t.Fatal(err)
	}
}

// ends adds up where the partitions of the claims topic end.
func (r *rig) ends() (sum int64) {
	r.t.Helper()
	topic, err := r.writer.Topic(r.t.Context(), Topic)
	if err != nil {
		r.t.Fatal(err)
	}
	for p := range topic.Partitions() {
		at, err := r.writer.Offsets(r.t.Context(), topic, []int32{p}, broker.HighWatermark)
		if err != nil {
			r.t.Fatal(err)
		}
		sum += at[p]
	}
	return sum
}

// pass lets virtual time pass, and waits until what it set off has settled.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// ask claims key k for a body, with ten seconds of time, and tells what comes of it.
func (b book) ask(id string, body byte) (Verdict, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.askWithin(ctx, id, body)
}

// window is how long the claims of the tests live.
const window = 10 * time.Minute

func (b book) askWithin(ctx context.Context, id string, body byte) (Verdict, string) {
	s := stream(id)
	s.Issued = time.Now()
	s.Expires = s.Issued.Add(time.Hour)
	v, err := b.Claim(ctx, Claim{Marks: []Mark{mark('k', body)}, Place: []byte("k"), Stream: s, Until: s.Issued.Add(window)})
	for name, known := range map[string]error{
		"reused": ErrReused, "pending": ErrPending, "not read": ErrNotRead, "full": ErrFull, "unwritten": ErrUnwritten,
	} {
		if errors.Is(err, known) {
			return v, name
		}
	}
	switch {
	case err != nil:
		return v, err.Error()
	case v.Turn != nil:
		return v, "turn of " + v.Stream.ID
	}
	return v, "stream " + v.Stream.ID
}

// expect fails unless a claim comes to what is wanted.
func (b book) expect(t *testing.T, id string, body byte, want string) Verdict {
	t.Helper()
	v, got := b.ask(id, body)
	if got != want {
		t.Fatalf("%s: %s, want %s", id, got, want)
	}
	return v
}

// note ends a turn.
func (v Verdict) note(t *testing.T, offset int64) {
	t.Helper()
	if err := v.Turn.Note(t.Context(), Position{Partition: 1, Offset: offset, Incarnation: 7}); err != nil {
		t.Fatal(err)
	}
}
