//go:build e2e

// Package workers_test runs every worker in this folder as it stands, between
// real gateways and a real Kafka, stops it, kills it, and looks at what all
// clients have seen.
package workers_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// language is one of the workers.
type language struct {
	name        string     // of its folder
	needs       string     // what to install by hand
	install     [][]string // commands to run in a copy of the folder
	run         []string   // the command that runs it there
	progress    int        // replies before the last
	code        int        // status of the last
	exactlyOnce bool       // its replies and its commits are one transaction
	environment []string
}

// java says what the workers in Java need.
const java = "Maven and a JDK, 17 or newer (Debian: apt-get install maven openjdk-17-jdk-headless)"

var languages = []language{
	{name: "go", progress: 1, code: http.StatusCreated},
	{
		name: "python", needs: "Python 3 with venv (Debian: apt-get install python3-venv)",
		install: [][]string{
			{"python3", "-m", "venv", "venv"},
			{"venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements.txt"},
		},
		run: []string{"venv/bin/python", "worker.py"}, progress: 1, code: http.StatusCreated,
	},
	{
		name: "node", needs: "Node.js 18 or newer with npm",
		install: [][]string{{"npm", "ci", "--no-audit", "--no-fund"}},
		run:     []string{"node", "worker.js"}, progress: 1, code: http.StatusCreated,
	},
	{
		name: "spring", needs: java,
		install: [][]string{{"mvn", "--batch-mode", "--quiet", "package"}},
		run:     []string{"java", "-jar", "target/worker.jar"}, code: http.StatusOK, exactlyOnce: true,
	},
	{
		name: "transactions", needs: java,
		install: [][]string{{"mvn", "--batch-mode", "--quiet", "package"}},
		run:     []string{"java", "-jar", "target/worker.jar"}, code: http.StatusCreated, exactlyOnce: true,
		environment: []string{"ACCIDENT_EVERY=3"},
	},
}

// A worker gets its orders in three bursts, the last while it runs.
var bursts = []int{34, 33, 33}

// TestWorkersOnRealKafka runs all workers at once, each with a gateway and a topic
// of its own; the gateways share the reply topic.
func TestWorkersOnRealKafka(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	brokers := cluster.Addresses()
	gateway := build(t, t.TempDir(), "cmd/osmosis")
	t.Run("all", func(t *testing.T) { // ends when all have
		for _, l := range languages {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				l.hold(t, gateway, "kafka "+strings.Join(brokers, " "), brokers)
			})
		}
	})
}

// hold runs one worker: it is told to end in the middle of the first burst of
// orders and killed in the middle of the second.
func (l language) hold(t *testing.T, gateway, broker string, brokers []string) {
	folder := l.installed(t)
	if l.name == "go" {
		l.run = []string{build(t, t.TempDir(), "examples/workers/go")}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	environment := append([]string{
		"OSMOSIS_KAFKA=" + strings.Join(brokers, ","),
		"OSMOSIS_TOPIC=" + l.name + "-orders", "OSMOSIS_GROUP=" + l.name + "-orders", "OSMOSIS_WORKER=0",
	}, l.environment...)
	site := l.gateway(t, ctx, gateway, append(environment, "OSMOSIS_BROKER="+broker))
	worker := func() *process { return start(t, "the worker", folder, environment, l.run...) }

	var all []*order
	burst := func(n int) []*order {
		t.Helper()
		var placed []*order
		for range n {
			customer := ""
			if len(all)%2 == 0 {
				customer = fmt.Sprintf("customer %d", len(all)%5)
			}
			o, err := place(ctx, site, customer, fmt.Sprintf("tea %d", len(all)))
			if err != nil {
				t.Fatal(err)
			}
			placed, all = append(placed, o), append(all, o)
		}
		return placed
	}

	first := burst(bursts[0])
	w := worker()
	anyOf(t, ctx, first)
	code := w.terminate()
	stopped := done(all)

	second := burst(bursts[1])
	w = worker()
	anyOf(t, ctx, second)
	w.kill()
	killed := done(all)

	worker()
	burst(bursts[2])
	for _, o := range all {
		o.await(t, ctx)
	}

	again := 0
	for _, o := range all {
		n, err := o.check(l)
		if err != nil {
			t.Errorf("%q: %v", o.item, err)
		}
		again += n
	}
	committed, written := count(t, ctx, brokers, kgo.ReadCommitted()), count(t, ctx, brokers, kgo.ReadUncommitted())
	var results, progress, twice, aborted int
	for _, o := range all {
		results += committed.results[o.id]
		progress += committed.progress[o.id]
		twice += committed.results[o.id] - 1
		aborted += written.results[o.id] + written.progress[o.id] - committed.results[o.id] - committed.progress[o.id]
	}
	t.Logf("%d orders: SIGTERM after %d (exit code %d), SIGKILL after %d; every stream ended once, progress seen twice: %d", len(all), stopped, code, killed, again)
	t.Logf("on the log: %d results (%d of them second ones) and %d progress replies; in aborted transactions, seen by nobody: %d", results, twice, progress, aborted)
	if l.exactlyOnce && (twice != 0 || again != 0) {
		t.Errorf("a worker in transactions has answered twice: %d results, %d progress replies", twice, again)
	}
}

// gateway runs a gateway on the example's Caddyfile and gives its site's URL.
func (l language) gateway(t *testing.T, ctx context.Context, program string, environment []string) string {
	t.Helper()
	data := t.TempDir()
	site := "http://" + freeAddress(t)
	g := start(t, "the gateway", repository(), append(environment,
		"OSMOSIS_SITE="+site, "CADDY_ADMIN="+freeAddress(t), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data,
	), program, "run", "--config", "examples/workers/Caddyfile")
	for {
		response, err := http.Get(site + "/")
		if err == nil {
			response.Body.Close()
			return site
		}
		select {
		case <-g.exited:
			t.Fatal("the gateway has ended")
		case <-ctx.Done():
			t.Fatalf("the site does not answer: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// anyOf waits until the first of the orders has ended.
func anyOf(t *testing.T, ctx context.Context, orders []*order) {
	t.Helper()
	first := make(chan struct{}, len(orders))
	for _, o := range orders {
		go func() {
			select {
			case <-o.ended:
				first <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-first:
	case <-ctx.Done():
		t.Fatal("no stream has ended")
	}
}

// done counts the orders that have ended.
func done(orders []*order) int {
	n := 0
	for _, o := range orders {
		select {
		case <-o.ended:
			n++
		default:
		}
	}
	return n
}

// freeAddress gives a loopback address that nobody listens on just now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
