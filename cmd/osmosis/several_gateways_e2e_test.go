//go:build e2e

package main

import (
	"strings"
	"sync/atomic"
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
