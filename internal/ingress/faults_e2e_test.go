//go:build e2e

package ingress

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// A proxy cuts the connection in the middle of a produce request, after it, or
// when the broker has answered. Each record is on the topic exactly once.
func TestRealKafkaUnclearProduce(t *testing.T) {
	t.Parallel()
	const rounds = 300
	cluster := kafkatest.Start(t, kafkatest.Options{})
	ctx, stop := context.WithCancel(context.Background())
	p := &proxy{ctx: ctx}
	var cutNext atomic.Bool
	rng := rand.New(rand.NewPCG(7, 7))
	p.decide = func() cut {
		if !cutNext.Swap(false) {
			return uncut
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return afterHalf + cut(rng.IntN(int(cuts-afterHalf)))
	}
	w := &world{t: t}
	w.client = broker.New(broker.Config{Addresses: cluster.Addresses(), Dial: p.dial})
	t.Cleanup(func() {
		w.producer.Close()
		w.client.Close()
		stop()
		p.running.Wait()
	})
	w.recreate(4)
	w.producer = New(Config{Broker: w.client, Logger: zap.NewNop()})
	w.must("", "the storm begins")

	outcomes := make(map[string]outcome)
	for i := range rounds {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprintf("key-%d", i%8)
		}
		value := fmt.Sprintf("0:%d", i)
		cutNext.Store(true)
		ack, err := w.produce(key, value)
		if err != nil {
			t.Errorf("%s: %v", value, err)
		}
		outcomes[value] = outcome{ack, err}
	}
	verify(t, w, outcomes)
	t.Logf("%d rounds: %d cut within the request, %d after it, %d after the answer", rounds, p.made[afterHalf], p.made[afterAll], p.made[answered])
}

// load produces on many keys, and without, until it is told to stop; the
// outcomes are by value.
func load(w *world, submitters int) (stop func() map[string]outcome) {
	outcomes := make(map[string]outcome)
	var mu sync.Mutex
	var all sync.WaitGroup
	over := make(chan struct{})
	for k := range submitters {
		all.Go(func() {
			key := ""
			if k%4 > 0 {
				key = fmt.Sprintf("key-%d", k)
			}
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				value := fmt.Sprintf("%d:%d", k, i)
				ack, err := w.produce(key, value)
				mu.Lock()
				outcomes[value] = outcome{ack, err}
				mu.Unlock()
			}
		})
	}
	return func() map[string]outcome {
		close(over)
		all.Wait()
		return outcomes
	}
}

// Leaders move from broker to broker under load. What was accepted is there
// once, in order, and no move costs anybody a record.
func TestRealKafkaLeadersMove(t *testing.T) {
	t.Parallel()
	const moves = 4
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	w := realWorld(t, cluster, 6)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	w.must("", "the storm begins")
	stop := load(w, 12)

	moved := 0
	for i := range moves {
		before := leadersOf(t, w)
		request := make(kadm.AlterPartitionAssignmentsReq)
		for p := range int32(6) {
			first := (int32(i) + p) % 3
			request.Assign("orders", p, []int32{1 + first, 1 + (first+1)%3, 1 + (first+2)%3})
		}
		answer, err := admin.AlterPartitionAssignments(t.Context(), request)
		if err == nil {
			err = answer.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
		awaitElection(t, admin, i)
		for p, leader := range leadersOf(t, w) {
			if leader != before[p] {
				moved++
			}
		}
	}
	outcomes := stop()
	left := verify(t, w, outcomes)
	t.Logf("%d records, %d leaders moved, %d unclear", len(outcomes), moved, left)
	if moved < moves {
		t.Errorf("only %d leaders have moved", moved)
	}
}

// awaitElection has the first broker of each assignment elected.
func awaitElection(t *testing.T, admin *kadm.Client, round int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, _ = admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, kadm.TopicsSet{"orders": {0: {}, 1: {}, 2: {}, 3: {}, 4: {}, 5: {}}})
		topics, err := admin.ListTopics(ctx, "orders")
		if err != nil {
			t.Fatal(err)
		}
		there := 0
		for p, d := range topics["orders"].Partitions {
			if d.Leader == 1+(int32(round)+p)%3 {
				there++
			}
		}
		if there == 6 {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%d leaders of 6 have moved", there)
		}
	}
}

func leadersOf(t *testing.T, w *world) []int32 {
	t.Helper()
	topic, err := w.client.Topic(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	return topic.Leaders
}

// The only broker is killed twice under load, as by SIGKILL.
func TestRealKafkaKilledTwice(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	w := realWorld(t, cluster, 4)
	w.must("", "the storm begins")
	stop := load(w, 16)
	for range 2 {
		select {
		case <-time.After(time.Second):
		case <-t.Context().Done():
		}
		cluster.Kill()
		cluster.Restart()
	}
	if _, err := w.producer.Produce(t.Context(), timed(order("", "the storm is over"), 30*time.Second)); err != nil {
		t.Error(err)
	}
	outcomes := stop()
	left := verify(t, w, outcomes)
	t.Logf("%d records, %d unclear", len(outcomes), left)
}
