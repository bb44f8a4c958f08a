//go:build e2e

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// TestTheGatewayIsKilledUnderLoadOnTheEmbeddedBroker kills gateway and broker,
// which are one process.
func TestTheGatewayIsKilledUnderLoadOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	global, address := embeddedBroker(t)
	killedUnderLoad(t, newGateway(t, global+manyStreams, keyed), []string{address})
}

// TestTheGatewayIsKilledUnderLoadOnRealKafka kills the gateway alone.
func TestTheGatewayIsKilledUnderLoadOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	killedUnderLoad(t, newGateway(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " ")+manyStreams, keyed), cluster.Addresses())
}

// killedUnderLoad kills the gateway twice under 64 clients. What they follow is
// answered in three parts over a second, so that a kill finds streams in all states.
func killedUnderLoad(t *testing.T, g *gateway, brokers []string) {
	g.start()
	const kills = 2
	total := underLoad(t)
	c := &crowd{URL: g.URL, senders: 64, more: requests(total)}
	c.start(t)
	crew(t, brokers, func(n int) []time.Duration {
		pause := time.Duration(n%10) * 50 * time.Millisecond
		return []time.Duration{0, pause, pause}
	})
	for i := range kills {
		c.await(t, "answers before a kill", &c.got202, int64(total/(kills+1)*(i+1)))
		g.kill()
		g.start()
	}
	c.finish(t)
	found := c.check(t, brokers)
	if found.accepted < total/2 || found.resumed == 0 {
		t.Errorf("%d of %d got 202, %d connections resumed", found.accepted, total, found.resumed)
	}
	c.checkForgotten(t, 100)
	t.Logf("the gateway killed %d times: %s", kills, found)
}
