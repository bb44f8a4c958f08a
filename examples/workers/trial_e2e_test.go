//go:build e2e

package workers_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// A worker gets its orders in three bursts, the last while it runs. The request
// noOrder, counted from 0, cannot be read.
const (
	firstBurst, secondBurst, thirdBurst = 34, 33, 33
	noOrder                             = 70
)

// trial is what one worker goes through.
type trial struct {
	t       *testing.T
	l       language
	brokers []string
	site    string
	orders  []*order
	stopped []*order // those with an end when the first worker had stopped
}

// hold runs one worker behind a gateway of its own: it is told to end in the
// middle of the first burst of orders and killed in the middle of the second.
func (l language) hold(t *testing.T, gateway, broker string, brokers []string) {
	folder := l.installed(t)
	if l.name == "go" {
		l.run = []string{exampletest.Build(t, t.TempDir(), "examples/workers/go")}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	environment := []string{
		"OSMOSIS_KAFKA=" + strings.Join(brokers, ","),
		"OSMOSIS_TOPIC=" + l.name + "-orders", "OSMOSIS_GROUP=" + l.name + "-orders", "OSMOSIS_WORKER=0",
		"ACCIDENT_EVERY=3", // the one in transactions knows it
	}
	tr := &trial{t: t, l: l, brokers: brokers}
	tr.site = startGateway(t, gateway, append(environment, "OSMOSIS_BROKER="+broker))

	burst := tr.place(ctx, firstBurst)
	worker := exampletest.StartIn(t, folder, "the first worker", l.run, environment...)
	anyOf(ctx, t, burst)
	code := worker.Terminate()
	if code != 0 && code != 128+int(syscall.SIGTERM) { // Java's way of telling
		t.Errorf("SIGTERM: exit code %d", code)
	}
	tr.stopped = ended(tr.orders)

	burst = tr.place(ctx, secondBurst)
	worker = exampletest.StartIn(t, folder, "the second worker", l.run, environment...)
	anyOf(ctx, t, burst)
	worker.Kill()
	killed := ended(tr.orders)

	exampletest.StartIn(t, folder, "the third worker", l.run, environment...)
	tr.place(ctx, thirdBurst)
	for _, o := range tr.orders {
		o.await(ctx, t)
	}
	t.Logf("%d requests: SIGTERM after %d answers (exit code %d), SIGKILL after %d", len(tr.orders), len(tr.stopped), code, len(killed))
	tr.checkClients()
	tr.checkLog(ctx)
}

// place posts orders, half of them with a key.
func (tr *trial) place(ctx context.Context, n int) []*order {
	tr.t.Helper()
	began := len(tr.orders)
	for i := began; i < began+n; i++ {
		customer, item := "", fmt.Sprintf("tea %d", i)
		if i%2 == 0 {
			customer = fmt.Sprintf("customer %d", i%5)
		}
		if i == noOrder {
			item = ""
		}
		o, err := place(ctx, tr.site, customer, item)
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.orders = append(tr.orders, o)
	}
	return tr.orders[began:]
}

// checkClients looks at what every client has seen.
func (tr *trial) checkClients() {
	again := 0
	for _, o := range tr.orders {
		n, err := o.check(tr.l)
		if err != nil {
			tr.t.Errorf("%q: %v", o.item, err)
		}
		again += n
	}
	tr.t.Logf("clients: every one saw its result once, and the end; progress seen twice: %d", again)
	if tr.l.exactlyOnce && again != 0 {
		tr.t.Errorf("a worker in transactions has told progress twice: %d", again)
	}
}

// checkLog counts the replies on the reply topic, those of aborted transactions
// too, which no client may have seen.
func (tr *trial) checkLog(ctx context.Context) {
	t := tr.t
	committed, written := readReplies(ctx, t, tr.brokers, kgo.ReadCommitted()), readReplies(ctx, t, tr.brokers, kgo.ReadUncommitted())
	var results, progress, twice, aborted, seen int
	for _, o := range tr.orders {
		results += committed.results[o.id]
		progress += committed.progress[o.id]
		twice += committed.results[o.id] - 1
		aborted += written.results[o.id] + written.progress[o.id] - committed.results[o.id] - committed.progress[o.id]
		for _, r := range o.replies {
			if !committed.places[r.place()] {
				seen++
			}
		}
	}
	t.Logf("log: %d results (%d of them second ones), %d progress replies; of aborted transactions %d, seen by clients %d", results, twice, progress, aborted, seen)
	if seen != 0 {
		t.Errorf("clients have seen %d replies that were never committed", seen)
	}
	if tr.l.exactlyOnce && twice != 0 {
		t.Errorf("a worker in transactions has answered twice: %d", twice)
	}
	for _, o := range tr.stopped {
		if committed.results[o.id] != 1 {
			t.Errorf("%q was done again, though the worker that did it had the time to commit", o.item)
		}
	}
	if tr.l.accidents && aborted == 0 {
		t.Error("no transaction with a reply was aborted")
	}
}

// startGateway runs a gateway on the example's Caddyfile and gives its site's URL.
func startGateway(t *testing.T, program string, environment []string) string {
	t.Helper()
	data := t.TempDir()
	site := "http://" + exampletest.FreeAddress(t)
	g := exampletest.Start(t, "the gateway", []string{program, "run", "--config", "examples/workers/Caddyfile"}, append(environment,
		"OSMOSIS_SITE="+site, "CADDY_ADMIN="+exampletest.FreeAddress(t), "XDG_DATA_HOME="+data, "XDG_CONFIG_HOME="+data)...)
	g.AwaitSite(site + "/")
	return site
}

// anyOf waits until the first of the orders has ended.
func anyOf(ctx context.Context, t *testing.T, orders []*order) {
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

// ended gives the orders that have ended.
func ended(orders []*order) []*order {
	var all []*order
	for _, o := range orders {
		select {
		case <-o.ended:
			all = append(all, o)
		default:
		}
	}
	return all
}
