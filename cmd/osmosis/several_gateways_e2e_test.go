//go:build e2e

package main

import (
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// several starts gateways on one Kafka, with one token key, and a load
// balancer before them.
func several(t *testing.T, n int) (gateways []*gateway, b *balancer, brokers []string) {
	t.Helper()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	global := "\t\tkafka " + strings.Join(cluster.Addresses(), " ") + "\n\t\ttoken {\n\t\t\tkey a-secret-that-all-gateways-have-in-common\n\t\t}" + manyStreams
	for range n {
		g := newGateway(t, global, keyed)
		g.start()
		gateways = append(gateways, g)
	}
	return gateways, newBalancer(t, gateways...), cluster.Addresses()
}

// TestAGatewayIsFrozenAndKilledOnRealKafka stops one of two gateways by SIGSTOP
// for longer than any session lasts, and then kills it. Its clients notice by
// the heartbeats that they miss; the balancer goes on to send it every second
// connection.
func TestAGatewayIsFrozenAndKilledOnRealKafka(t *testing.T) {
	t.Parallel()
	frozenUnderLoad(t, 40*time.Second, "killed", func(g *gateway) { g.kill() })
}

// TestAGatewayIsFrozenAndThawedOnRealKafka lets the gateway go on after its
// session has ended: it finds requests that their clients have given up, and
// home partitions that are another's by now.
func TestAGatewayIsFrozenAndThawedOnRealKafka(t *testing.T) {
	t.Parallel()
	frozenUnderLoad(t, 20*time.Second, "thawed", func(g *gateway) { g.signal(syscall.SIGCONT) })
}

func frozenUnderLoad(t *testing.T, frozen time.Duration, then string, end func(*gateway)) {
	t.Helper()
	gateways, b, brokers := several(t, 2)
	const total = 1_000
	c := &crowd{URL: b.URL, senders: 32, every: 500 * time.Millisecond, fresh: true, silence: 4 * time.Second}
	c.more = func() bool { return c.got202.Load() < total }
	c.start(t)
	// A stream lasts for up to 20 s.
	crew(t, brokers, func(n int) []time.Duration {
		pause := time.Duration(n%20) * 500 * time.Millisecond
		return []time.Duration{0, pause, pause}
	})
	c.await(t, "streams before the freeze", &c.got202, total/5)
	open := c.got202.Load() - c.ended.Load()
	gateways[0].signal(syscall.SIGSTOP)
	<-time.After(frozen)
	meanwhile := c.got202.Load()
	end(gateways[0])
	c.finish(t)
	found := c.check(t, brokers)
	if found.accepted < total || found.resumed == 0 {
		t.Errorf("%d streams, %d resumed connections", found.accepted, found.resumed)
	}
	t.Logf("one of two gateways frozen for %s with %d streams open, and %s when there had been %d: %s", frozen, open, then, meanwhile, found)
}

// TestARollingRestartOnRealKafka restarts two gateways in turn, twice, while
// the other serves. No request is refused; a few connections that the server
// had not looked at when it stopped are lost, as on a route without a queue.
func TestARollingRestartOnRealKafka(t *testing.T) {
	t.Parallel()
	gateways, b, brokers := several(t, 2)
	c := &crowd{URL: b.URL, senders: 16, every: 50 * time.Millisecond, fresh: true}
	var over atomic.Bool
	c.more = func() bool { return !over.Load() }
	c.start(t)
	crew(t, brokers, func(n int) []time.Duration {
		pause := time.Duration(n%20) * 100 * time.Millisecond
		return []time.Duration{0, pause, pause}
	})
	const rounds = 2
	for round := range int64(rounds) {
		for i, g := range gateways {
			c.await(t, "streams before a restart", &c.got202, 200*(2*round+int64(i)+1))
			g.stop()
			g.start()
		}
	}
	over.Store(true)
	c.finish(t)
	found := c.check(t, brokers)
	if found.refused+found.unclear > 0 || found.resumed == 0 {
		t.Errorf("%d requests refused, %d resumed connections", found.refused+found.unclear, found.resumed)
	}
	t.Logf("two gateways restarted in turn, %d times: %s", rounds, found)
}
