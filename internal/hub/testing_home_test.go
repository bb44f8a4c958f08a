package hub

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const gatewayTopic = "osmosis.replies"

// gatewayCluster is a Kafka cluster in the test's bubble, behind a network that
// can be taken down.
type gatewayCluster struct {
	t *testing.T
	*kfake.Cluster
	network kfake.VirtualNetwork

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func newGatewayCluster(t *testing.T, options ...kfake.Opt) *gatewayCluster {
	t.Helper()
	c := &gatewayCluster{t: t, conns: make(map[net.Conn]struct{})}
	options = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(c.network.Listen)}, options...)
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	c.Cluster = cluster
	return c
}

// dial is the network of everyone in the test.
func (c *gatewayCluster) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	conn, err := c.network.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conns[conn] = struct{}{}
	return conn, nil
}

// goDown closes all connections and refuses new ones until comeUp.
func (c *gatewayCluster) goDown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = true
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

func (c *gatewayCluster) comeUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = false
}

func (c *gatewayCluster) client() *broker.Client {
	client := broker.New(broker.Config{Addresses: c.ListenAddrs(), Dial: c.dial})
	c.t.Cleanup(client.Close)
	return client
}

// produce puts n records on a partition.
func (c *gatewayCluster) produce(client *broker.Client, partition, n int) {
	c.t.Helper()
	records := make([]kafka.Record, n)
	for i := range records {
		records[i].Value = kafka.NewBytes([]byte("v"))
	}
	answer, err := client.API().Produce(c.t.Context(), &kafka.ProduceRequest{
		Topic: gatewayTopic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// grow gives the topic more partitions.
func (c *gatewayCluster) grow(client *broker.Client, to int) {
	c.t.Helper()
	answer, err := client.API().CreatePartitions(c.t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: gatewayTopic, Count: int32(to)}},
	})
	if err == nil {
		err = answer.Errors[gatewayTopic]
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// recreate deletes the topic and makes it again.
func (c *gatewayCluster) recreate(partitions int32) {
	c.t.Helper()
	if err := c.DeleteTopic(gatewayTopic); err != nil {
		c.t.Fatal(err)
	}
	if err := c.CreateTopic(gatewayTopic, partitions, nil); err != nil {
		c.t.Fatal(err)
	}
}

// gateway is what one process has: floors, a membership and a placer.
type gateway struct {
	client *broker.Client
	floors *floors
	home   *home
	placer *placer
	logs   *observer.ObservedLogs
	leave  func() // ends it and waits for it

	mu        sync.Mutex
	positions map[int32]int64
	assigned  [][]int32
}

func newGateway(c *gatewayCluster, create bool) *gateway {
	core, logs := observer.New(zap.DebugLevel)
	log := zap.New(core)
	g := &gateway{client: c.client(), logs: logs, positions: make(map[int32]int64)}
	g.floors = newFloors(floorsConfig{
		broker: g.client, create: create, log: log,
		spec: broker.TopicSpec{Name: gatewayTopic, Partitions: 4},
	})
	g.home = newHome(homeConfig{
		broker: g.client, topic: gatewayTopic, log: log, floors: g.floors,
		positions: func() map[int32]int64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.positions
		},
		onHome: func(owned []int32) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.assigned = append(g.assigned, owned)
		},
	})
	g.placer = newPlacer(gatewayTopic, g.floors, g.home)
	return g
}

// start runs the gateway until the test ends or leave is called.
func (c *gatewayCluster) start(create bool) *gateway {
	g := newGateway(c, create)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.floors.run(ctx) })
	running.Go(func() { g.home.run(ctx) })
	g.leave = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	c.t.Cleanup(g.leave)
	return g
}

func (g *gateway) commit(positions map[int32]int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.positions = positions
}

// generations counts the assignments so far.
func (g *gateway) generations() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.assigned)
}

// known gives the floors, unknown ones as such; nil before there is a topic.
func (g *gateway) known() []int64 {
	s := g.floors.current()
	if s == nil {
		return nil
	}
	out := make([]int64, len(s.offsets))
	for p := range out {
		out[p] = s.offsets[p].Load()
	}
	return out
}

// pass lets virtual time pass, and waits until what it set off has settled.
func pass(d time.Duration) {
	<-time.After(d) // the bubble's clock jumps when nobody has anything to do
	synctest.Wait()
}

func wantOwned(t *testing.T, g *gateway, want ...int32) {
	t.Helper()
	if got := g.home.owned(); !slices.Equal(got, want) {
		t.Fatalf("home partitions %v, want %v", got, want)
	}
}

func wantKnown(t *testing.T, g *gateway, want ...int64) {
	t.Helper()
	if got := g.known(); !slices.Equal(got, want) {
		t.Fatalf("floors %v, want %v", got, want)
	}
}

// bubble runs a test in virtual time.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}
