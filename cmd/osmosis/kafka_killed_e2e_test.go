//go:build e2e

package main

import (
	"strings"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// keyed queues orders under the key that their sender names.
const keyed = "\tosmosis /orders orders {\n\t\tkey {http.request.header.X-Sender}\n\t}\n\trespond \"the rest of the site\""

// manyStreams lets one address have all streams of a test.
const manyStreams = "\n\t\tstreams {\n\t\t\tmax_open_per_client 20000\n\t\t\theartbeat 3s\n\t\t}"

// TestKafkaIsKilledUnderLoadOnRealKafka kills Kafka twice under 64 clients, and
// starts it again on the same data.
func TestKafkaIsKilledUnderLoadOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	kafkaKilledUnderLoad(t, cluster, 2, func(int) {
		cluster.Kill()
		cluster.Restart()
	})
}

// TestLeadersAreKilledUnderLoadOnRealKafka kills each of three brokers in turn,
// so that its partitions get another leader, and starts it again.
func TestLeadersAreKilledUnderLoadOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	kafkaKilledUnderLoad(t, cluster, 3, func(i int) {
		cluster.Kill(i)
		cluster.Restart(i)
	})
}

func kafkaKilledUnderLoad(t *testing.T, cluster *kafkatest.Cluster, kills int, kill func(i int)) {
	t.Helper()
	// The timeout is shorter than a broker is away, so that there are refusals too.
	g := newGateway(t, "\t\tkafka "+strings.Join(cluster.Addresses(), " ")+"\n\t\tproduce_timeout 3s"+manyStreams, keyed)
	g.start()
	total := underLoad(t)
	c := &crowd{URL: g.URL, senders: 64, more: requests(total)}
	c.start(t)
	crew(t, cluster.Addresses(), atOnce)
	for i := range kills {
		c.await(t, "answers before a kill", &c.got202, int64(total/(kills+1)*(i+1)))
		kill(i)
	}
	c.finish(t)
	found := c.check(t, cluster.Addresses())
	if found.unknown > 0 || found.accepted < total/2 {
		t.Errorf("%d requests got no answer, %d of %d got 202", found.unknown, found.accepted, total)
	}
	c.checkForgotten(t, 100)
	t.Logf("Kafka killed %d times: %s", kills, found)
}
