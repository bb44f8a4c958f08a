package ingress

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a broker in memory, a client of it and a producer. It has to be
// made inside a synctest bubble.
type world struct {
	*kfake.Cluster
	t        *testing.T
	link     link
	client   *broker.Client
	producer *Producer
}

// newWorld makes a cluster of one broker with the topic "orders" of n
// partitions, unless options say otherwise.
func newWorld(t *testing.T, partitions int32, c Config, options ...kfake.Opt) *world {
	t.Helper()
	w := &world{t: t}
	options = append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(9093), kfake.ListenFn(w.link.network.Listen), kfake.SeedTopics(partitions, "orders"),
	}, options...)
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	w.Cluster = cluster
	w.client = broker.New(broker.Config{Addresses: cluster.ListenAddrs(), Dial: w.link.dial})
	c.Broker = w.client
	if c.Logger == nil {
		c.Logger = zaptest.NewLogger(t)
	}
	w.producer = New(c)
	t.Cleanup(func() {
		w.producer.Close()
		<-time.After(maxDelay) // requests that the link holds back outlive their calls
		w.client.Close()
		cluster.Close()
	})
	return w
}

// produce puts a value with a key on "orders"; no key for an empty one.
func (w *world) produce(key, value string) (Ack, error) {
	return w.producer.Produce(w.t.Context(), order(key, value))
}

func order(key, value string) Request {
	r := Request{Topic: "orders", Record: record.Record{Value: []byte(value)}}
	if key != "" {
		r.Record.Key = []byte(key)
	}
	return r
}

// must is produce where an error is a failure of the test.
func (w *world) must(key, value string) Ack {
	w.t.Helper()
	ack, err := w.produce(key, value)
	if err != nil {
		w.t.Fatalf("produce %q: %v", value, err)
	}
	return ack
}

// later runs produce in a goroutine and gives its error on a channel.
func (w *world) later(r Request) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := w.producer.Produce(w.t.Context(), r)
		done <- err
	}()
	return done
}

// grow gives "orders" more partitions.
func (w *world) grow(n int32) {
	w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(w.ListenAddrs()...), kgo.Dialer(w.link.network.DialContext))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	r := kmsg.NewPtrCreatePartitionsRequest()
	grown := kmsg.NewCreatePartitionsRequestTopic()
	grown.Topic, grown.Count = "orders", n
	r.Topics, r.TimeoutMillis = append(r.Topics, grown), 1000
	if _, err := client.Request(w.t.Context(), r); err != nil {
		w.t.Fatal(err)
	}
}

// stored is a record as it lies on a topic.
type stored struct {
	partition int32
	offset    int64
	key       string
	value     string
}

// read gives all records of a topic, by partition and offset.
func (w *world) read(topic string) []stored {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	info, err := w.client.Topic(ctx, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []stored
	for p, leader := range info.Leaders {
		from := broker.FetchFrom{Topic: topic, ID: info.ID, Partition: int32(p)}
		for {
			got, err := w.client.Fetch(ctx, broker.FetchRequest{Leader: leader, From: []broker.FetchFrom{from}, MaxBytes: 10 << 20})
			if err != nil {
				w.t.Fatal(err)
			}
			if got[0].Err != nil {
				w.t.Fatal(got[0].Err)
			}
			for _, r := range got[0].Records {
				all = append(all, stored{int32(p), r.Offset, string(r.Key), string(r.Value)})
			}
			if from.Offset = got[0].Next; from.Offset >= got[0].HighWatermark {
				break
			}
		}
	}
	return all
}

// values gives the values of "orders".
func (w *world) values() []string {
	var values []string
	for _, s := range w.read("orders") {
		values = append(values, s.value)
	}
	return values
}

// onProduce calls f for every produce request before the broker sees it. With
// an answer or an error from f, the broker never does.
func (w *world) onProduce(f func(n int, r *kmsg.ProduceRequest) (kmsg.Response, error, bool)) {
	n := 0
	w.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.KeepControl()
		n++
		return f(n, r.(*kmsg.ProduceRequest))
	})
}

// identities decodes what identifies the batches of a produce request.
func identities(r *kmsg.ProduceRequest) map[int32]identity {
	found := make(map[int32]identity)
	for _, p := range r.Topics[0].Partitions {
		var b kmsg.RecordBatch
		if err := b.ReadFrom(p.Records); err != nil {
			panic(fmt.Sprintf("the producer sent a batch that cannot be decoded: %v", err))
		}
		found[p.Partition] = identity{b.ProducerID, b.ProducerEpoch, b.FirstSequence}
	}
	return found
}

// answer refuses all of a produce request with one code.
func answer(r *kmsg.ProduceRequest, code kafka.Error) kmsg.Response {
	a := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.Topics {
		at := kmsg.NewProduceResponseTopic()
		at.Topic, at.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			ap := kmsg.NewProduceResponseTopicPartition()
			ap.Partition, ap.ErrorCode, ap.BaseOffset = p.Partition, int16(code), -1
			at.Partitions = append(at.Partitions, ap)
		}
		a.Topics = append(a.Topics, at)
	}
	return a
}

// sentinels are all errors that Produce may give.
var sentinels = []error{ErrFull, ErrTooLarge, ErrTopicMissing, ErrRefused, ErrUnclear, ErrUnavailable, ErrClosed}

func sentinel(err error) error {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return s
		}
	}
	return nil
}
