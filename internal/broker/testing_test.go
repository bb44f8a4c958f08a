package broker

import (
	"context"
	"errors"
	"hash/crc32"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test in virtual time.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// world is a cluster in the test's bubble and a client of it, with a network
// between them that can be taken down.
type world struct {
	t *testing.T
	*kfake.Cluster
	*Client
	network kfake.VirtualNetwork

	mu    sync.Mutex
	down  bool
	slow  chan struct{} // what dialing waits for, when not nil
	conns []net.Conn
}

// one is the only broker of most worlds.
const one int32 = 0

// brokers makes a cluster of several, numbered from 0.
func brokers(n int) kfake.Opt {
	return kfake.Ports([]int{9092, 9093, 9094}[:n]...)
}

func newWorld(t *testing.T, options ...kfake.Opt) *world {
	t.Helper()
	w := &world{t: t}
	options = append([]kfake.Opt{kfake.Ports(9092), kfake.ListenFn(w.network.Listen)}, options...)
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w.Cluster = cluster
	w.Client = New(Config{Addresses: cluster.ListenAddrs(), Dial: w.dial})
	t.Cleanup(w.Client.Close)
	return w
}

// Close is the client's; the cluster closes with the test.
func (w *world) Close() { w.Client.Close() }

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	slow := w.slow
	w.mu.Unlock()
	if slow != nil {
		<-slow
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		return nil, errors.New("connection refused")
	}
	conn, err := w.network.DialContext(ctx, network, address)
	if err == nil {
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// cut takes the network down or up.
func (w *world) cut(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

// make makes a topic and gives what the broker says of it.
func (w *world) make(name string, partitions int32, config map[string]string) Topic {
	w.t.Helper()
	if err := w.CreateTopic(name, partitions, config); err != nil {
		w.t.Fatal(err)
	}
	return w.topic(name)
}

func (w *world) topic(name string) Topic {
	w.t.Helper()
	topic, err := w.Topic(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return topic
}

// fetch reads one partition of a topic by its id.
func (w *world) fetch(t Topic, partition int32, offset int64) Fetched {
	w.t.Helper()
	got, err := w.Fetch(w.t.Context(), FetchRequest{
		Leader: t.Leaders[partition], MaxWait: 100 * time.Millisecond, MaxBytes: 1 << 20,
		From: []FetchFrom{{Topic: t.Name, ID: t.ID, Partition: partition, Offset: offset}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(got) != 1 {
		w.t.Fatalf("%d answers for one partition", len(got))
	}
	return got[0]
}

// writer is an independent client that produces: franz-go's.
func (w *world) writer(options ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(w.ListenAddrs()...), kgo.Dialer(w.network.DialContext),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
	}, options...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return client
}

// write produces values to a partition, a batch each.
func (w *world) write(client *kgo.Client, topic string, partition int32, values ...string) {
	w.t.Helper()
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}
		if err := client.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func values(f Fetched) []string {
	var out []string
	for _, r := range f.Records {
		out = append(out, string(r.Value))
	}
	return out
}

func wantError(t *testing.T, err error, want kafka.Error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// batch encodes values as one record batch. Its attributes may say that the
// times are the log's.
func batch(attributes int16, first, last time.Time, values ...string) []byte {
	var records []byte
	for i, v := range values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // the length itself is one byte here
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, Attributes: attributes, LastOffsetDelta: int32(len(values) - 1),
		FirstTimestamp: first.UnixMilli(), MaxTimestamp: last.UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(values)), Records: records,
	}
	const lengthEnd, crcEnd = 12, 21
	b.Length = int32(len(b.AppendTo(nil)) - lengthEnd)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[crcEnd:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}
