//go:build e2e

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAReloadEverySecondCutsNothing reloads every second for twenty seconds
// under load, with 500 streams open all along that are told something every two
// seconds. A broker in the test's own process counts how often gateways join
// their group.
func TestAReloadEverySecondCutsNothing(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	joins := countJoins(cluster)
	global := "\t\tkafka " + strings.Join(cluster.ListenAddrs(), " ") + "\n\t\tproduce_timeout 10s"
	g := newGateway(t, global+manyStreams, keyed)
	g.start()

	// The first requests of the run are those whose streams stay.
	const held, parts, reloads = 500, 12, 20
	crew(t, cluster.ListenAddrs(), func(n int) []time.Duration {
		if n >= held {
			return []time.Duration{0, time.Second}
		}
		pauses := make([]time.Duration, parts)
		for i := range pauses {
			pauses[i] = 2 * time.Second
		}
		return pauses
	})
	stay := &crowd{URL: g.URL, senders: 16, more: requests(held), forms: []follower{bySSE, byWebSocket}}
	stay.start(t)
	stay.await(t, "open streams", &stay.opened, held)
	g.eventually("the gateway has joined", func() error {
		if !strings.Contains(g.log.String(), "home partitions") {
			return errors.New("no partitions yet")
		}
		return nil
	})
	before := joins.Load()

	// Each request over a connection of its own: one that is kept may be closed
	// by the old server just when the next request is on its way, reload or not.
	var over atomic.Bool
	load := &crowd{history: stay.history, URL: g.URL, senders: 8, forms: stay.forms, fresh: true, every: 20 * time.Millisecond, more: func() bool { return !over.Load() }}
	load.start(t)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for i := range reloads {
		<-second.C
		g.configure(strings.Replace(global, "10s", fmt.Sprintf("%ds", 11+i), 1)+manyStreams, keyed)
		g.load()
	}
	meanwhile := stay.ended.Load()
	over.Store(true)
	load.finish(t)
	stay.finish(t)
	after := joins.Load()
	found := stay.check(t, cluster.ListenAddrs())
	if found.refused+found.unclear > 0 {
		t.Errorf("%d requests were refused", found.refused+found.unclear)
	}
	if found.connections != found.accepted || meanwhile > 0 {
		t.Errorf("%d streams took %d connections, and %d of those that stay had ended before the last reload", found.accepted, found.connections, meanwhile)
	}
	if before == 0 || after != before {
		t.Errorf("%d JoinGroup before the reloads, %d after", before, after)
	}
	t.Logf("%d reloads, a second apart, with %d streams open: %d JoinGroup before and after: %s", reloads, held, before, found)
}

// countJoins counts the JoinGroup requests of gateways.
func countJoins(cluster *kfake.Cluster) *atomic.Int64 {
	var joins atomic.Int64
	cluster.ControlKey((&kmsg.JoinGroupRequest{}).Key(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if strings.HasPrefix(r.(*kmsg.JoinGroupRequest).Group, "osmosis.gateways.") {
			joins.Add(1)
		}
		return nil, nil, false
	})
	return &joins
}

// load loads the Caddyfile again, without the command that reload starts for it.
func (g *gateway) load() {
	g.t.Helper()
	text, err := os.ReadFile(g.Caddyfile)
	if err != nil {
		g.t.Fatal(err)
	}
	response, err := http.Post("http://"+g.Admin+"/load", "text/caddyfile", bytes.NewReader(text))
	if err != nil {
		g.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		g.t.Fatalf("load: %s: %s", response.Status, text)
	}
}
