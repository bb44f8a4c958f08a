package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// world is a plan that is being carried out.
type world struct {
	plan    plan
	history history

	cluster   *kfake.Cluster
	keeper    *keeper
	network   kfake.VirtualNetwork
	wires     wires
	addresses []string
	keys      *hub.Keyring
	holding   holding

	ctx        context.Context // ends when the world has to have come to rest
	clients    sync.WaitGroup
	background sync.WaitGroup

	mu        sync.Mutex
	started   int        // gateways so far
	gateways  []*gateway // that get requests
	all       []*gateway // that there ever were
	cancelled map[string]bool
	wrongs    []string
}

// patience is how long, in virtual time, a world may take to come to rest after
// the last fault.
const patience = 15 * time.Minute

// wrong notes that a rule is broken.
func (w *world) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.wrongs, text) {
		w.wrongs = append(w.wrongs, text)
	}
}

func (w *world) logger(name string) *zap.Logger {
	level := zapcore.InfoLevel
	if debugging {
		level = zapcore.DebugLevel
	}
	return zap.New(&recorder{LevelEnabler: level, h: &w.history, name: name})
}

// sleep waits, and tells whether the world goes on.
func (w *world) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// anyGateway gives one of those that get requests, nil if there is none.
func (w *world) anyGateway(random *rand.Rand) *gateway {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := random.Uint32()
	if len(w.gateways) == 0 {
		return nil
	}
	return w.gateways[int(at)%len(w.gateways)]
}

// ports are those of the brokers.
var ports = []int{9092, 9093, 9094}

// newWorld makes the cluster.
func newWorld(p plan) (*world, error) {
	w := &world{plan: p, cancelled: make(map[string]bool)}
	w.history.began = time.Now()
	w.wires = wires{open: w.network.DialContext, ports: make(map[string]int), stalled: make([]valve, p.brokers), down: make([]int, p.brokers)}
	var err error
	w.cluster, err = kfake.NewCluster(kfake.NumBrokers(p.brokers), kfake.Ports(ports[:p.brokers]...), kfake.ListenFn(w.network.Listen))
	if err != nil {
		return nil, err
	}
	for i, port := range ports[:p.brokers] {
		w.wires.ports["localhost:"+strconv.Itoa(port)] = i
		w.wires.ports["127.0.0.1:"+strconv.Itoa(port)] = i
	}
	w.addresses = w.cluster.ListenAddrs()
	w.keys, err = hub.NewKeyring("a secret that is long enough for the keyring of a world")
	if err != nil {
		return nil, err
	}
	for topic, n := range w.topics() {
		if err := w.cluster.CreateTopic(topic, n, map[string]string{"message.timestamp.type": "LogAppendTime"}); err != nil {
			return nil, err
		}
		for i := range n {
			if err := w.cluster.MoveTopicPartition(topic, i, (i+int32(len(topic)))%int32(p.brokers)); err != nil {
				return nil, err
			}
		}
	}
	if w.keeper, err = newKeeper(w); err != nil {
		return nil, err
	}
	w.hold()
	if debugging {
		w.traceGroups()
	}
	return w, nil
}

// topics are all there are, with their partitions.
func (w *world) topics() map[string]int32 {
	return map[string]int32{
		orders: w.plan.partitions, orders + ".dlq": 1, jobs: w.plan.partitions,
		replyTopic: w.plan.replies, controlTopic: 1, claims.Topic: 2,
	}
}

// watchCommit notes what deliveries commit, whatever the broker makes of it.
func (w *world) watchCommit(q *kmsg.OffsetCommitRequest) {
	if q.Group != orders {
		return
	}
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	for _, t := range q.Topics {
		for _, p := range t.Partitions {
			c := commit{at: w.history.now(), partition: p.Partition, offset: p.Offset}
			if p.Metadata != nil {
				c.metadata = *p.Metadata
			}
			w.history.commits = append(w.history.commits, c)
		}
	}
}

// start adds a gateway.
func (w *world) start() *gateway {
	g := newGateway(w)
	w.history.note("%s: starts", g.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gateways, w.all = append(w.gateways, g), append(w.all, g)
	return g
}

// take takes a gateway off the list, nil if there are no more than least.
func (w *world) take(pick uint32, least int) *gateway {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.gateways) <= least {
		return nil
	}
	i := int(pick) % len(w.gateways)
	g := w.gateways[i]
	w.gateways = slices.Delete(slices.Clone(w.gateways), i, i+1)
	return g
}

// outcome is what a run has shown.
type outcome struct {
	plan    plan
	wrongs  []string
	history *history
	lasted  time.Duration
	faults  [kinds]int
}

// run carries out the plan of a seed, in a bubble of its own.
func run(t *testing.T, seed uint64) (o outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPlan(seed)
		w, err := newWorld(p)
		if err != nil {
			t.Fatal(err)
		}
		w.carryOut()
		o = outcome{plan: p, wrongs: w.wrongs, history: &w.history, lasted: w.history.now(), faults: w.countFaults()}
	})
	return o
}

// carryOut is the life of a world.
func (w *world) carryOut() {
	var end context.CancelFunc
	w.ctx, end = context.WithCancel(context.Background())
	defer end()
	w.background.Go(w.keeper.run)
	for range w.plan.gateways {
		w.start()
	}
	if w.plan.worker != nobody {
		w.background.Go(w.work)
	}
	if debugging {
		w.background.Go(w.traceMembers)
	}
	w.sleep(3 * time.Second) // most worlds begin when the gateways are there
	var sending sync.WaitGroup
	for i, sends := range w.plan.senders {
		sending.Go(func() { w.sender(i, sends) })
	}
	w.befall()
	w.mu.Lock()
	none := len(w.gateways) == 0
	w.mu.Unlock()
	if none {
		w.start()
	}
	stop := time.AfterFunc(patience, end)
	defer stop.Stop()
	sending.Wait()
	w.clients.Wait()
	w.readAgain()
	w.settle()
	end()
	w.check()
	w.mu.Lock()
	left := w.gateways
	w.gateways = nil
	w.mu.Unlock()
	for _, g := range left {
		w.background.Go(g.stop)
	}
	w.background.Wait()
	w.sleepAnyway(time.Second) // connections that are being opened get their end
	w.mu.Lock()
	all := w.all
	w.mu.Unlock()
	for _, g := range all {
		g.net.kill()
	}
	w.sleepAnyway(time.Minute) // those that were busy when their client was closed end by being idle
	for _, g := range all {
		g.client.Close()
	}
	w.cluster.Close()
}

// sleepAnyway waits, also when the world is over.
func (w *world) sleepAnyway(d time.Duration) { <-time.After(d) }

// readAgain has every stream read from its beginning by somebody who comes late.
func (w *world) readAgain() {
	if w.ctx.Err() != nil {
		return // there are streams without an end: that is enough
	}
	random := rand.New(rand.NewPCG(w.plan.seed, 2))
	for _, is := range slices.Clone(w.history.sent) {
		if !is.accepted {
			continue
		}
		if token, err := w.keys.Seal(is.claims); err == nil {
			w.read(is, token, fmt.Sprintf("late reader of work %d", is.work), random.Uint64())
		}
	}
	w.clients.Wait()
}

// settle waits until deliveries have committed that everything is done.
func (w *world) settle() {
	for range 600 { // a try whose stream has ended may go on until its timeout
		if w.unsettled() == "" {
			return
		}
		if !w.sleep(time.Second) {
			break
		}
	}
	if text := w.unsettled(); text != "" {
		w.wrong("not everything is committed as done in the end: %s", text)
	}
}

// unsettled says what is not committed as done.
func (w *world) unsettled() (text string) {
	group := w.cluster.GroupInfo(orders)
	for i := range w.plan.partitions {
		end := w.cluster.PartitionInfo(orders, i).HighWatermark
		var at int64 = -1
		if group != nil {
			if c, ok := group.Commits[orders][i]; ok {
				at = c.Offset
			}
		}
		if at != end && end > 0 {
			text += fmt.Sprintf("partition %d at %d of %d; ", i, at, end)
		}
	}
	return text
}
