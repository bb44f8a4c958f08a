package autoscale

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// cluster is a broker in the test's bubble, with a survey and an independent client.
type cluster struct {
	t *testing.T
	*kfake.Cluster
	network kfake.VirtualNetwork
	client  *broker.Client
	survey  *Survey
	writer  *kgo.Client
	admin   *kadm.Client

	mu    sync.Mutex
	down  bool
	conns []net.Conn
}

func newCluster(t *testing.T, options ...kfake.Opt) *cluster {
	t.Helper()
	c := &cluster{t: t}
	options = append([]kfake.Opt{kfake.Ports(9092), kfake.ListenFn(c.network.Listen)}, options...)
	fake, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	c.Cluster = fake
	c.client = broker.New(broker.Config{Addresses: fake.ListenAddrs(), Dial: c.dial})
	t.Cleanup(c.client.Close)
	c.survey = NewSurvey(SurveyConfig{Broker: c.client})
	t.Cleanup(c.survey.Close)
	c.writer = c.kgo(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	c.admin = kadm.NewClient(c.writer)
	return c
}

// kgo makes an independent client.
func (c *cluster) kgo(options ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.Dialer(c.network.DialContext), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MetadataMinAge(10 * time.Millisecond), kgo.ProducerLinger(0),
	}, options...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

func (c *cluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("connection refused")
	}
	conn, err := c.network.DialContext(ctx, network, address)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

// cut takes the survey's network down or up.
func (c *cluster) cut(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// topic makes a topic.
func (c *cluster) topic(name string, partitions int32) {
	c.t.Helper()
	if err := c.CreateTopic(name, partitions, nil); err != nil {
		c.t.Fatal(err)
	}
}

// commitWith commits with metadata.
func (c *cluster) commitWith(group, topic string, partition int32, offset int64, metadata string) {
	c.t.Helper()
	var o kadm.Offsets
	o.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
	if err := c.admin.CommitAllOffsets(c.t.Context(), group, o); err != nil {
		c.t.Fatal(err)
	}
}

// write produces some records to a partition, one after the other.
func (c *cluster) write(topic string, partition int32, n int) {
	c.t.Helper()
	for range n {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte("value")}
		if err := c.writer.ProduceSync(c.t.Context(), r).FirstErr(); err != nil {
			c.t.Fatal(err)
		}
	}
}

// commit commits as a tool would, from outside the group.
func (c *cluster) commit(group, topic string, partition int32, offset int64) {
	c.t.Helper()
	c.commitWith(group, topic, partition, offset, "")
}

// watch watches a topic and group.
func (c *cluster) watch(of Watched) *watching {
	w := c.survey.Watch(of)
	c.t.Cleanup(w.Close)
	return &watching{c.t, w}
}

// watching is a watch in a test.
type watching struct {
	t *testing.T
	*Watch
}

// next gives the next look.
func (w *watching) next() Measurement {
	w.t.Helper()
	m, err := w.Next(w.t.Context(), Want{})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// skip gives the nth look from here.
func (w *watching) skip(n int) Measurement {
	w.t.Helper()
	var m Measurement
	for range n {
		m = w.next()
	}
	return m
}

// fresh gives a look that has begun after the call: one may be there already.
func (w *watching) fresh() Measurement {
	w.t.Helper()
	now := time.Now()
	for {
		if m := w.next(); m.At.After(now) {
			return m
		}
	}
}

// backlogs are those of a look's partitions.
func backlogs(m Measurement) []int64 {
	var all []int64
	for _, p := range m.Partitions {
		all = append(all, p.Backlog)
	}
	return all
}
