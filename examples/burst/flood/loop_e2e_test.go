//go:build e2e

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// patience bounds every wait of these tests. It is long because it is no
// promise: machines that build and test at once are slow.
const patience = 2 * time.Minute

// The programs are built once for all tests.
var (
	folder          string
	building        sync.Once
	program, worker string
)

func TestMain(m *testing.M) {
	var err error
	if folder, err = os.MkdirTemp("", "osmosis-burst"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// gateway is a gateway that scales the example's workers for some topics.
type gateway struct {
	*exampletest.Process
	site, admin string
}

// gateways starts gateways on one Kafka, all with the same configuration.
func gateways(t *testing.T, n int, brokers []string, topics ...string) []gateway {
	t.Helper()
	building.Do(func() {
		program = exampletest.Gateway(t, folder)
		worker = exampletest.Build(t, folder, "examples/burst/worker")
	})
	all := make([]gateway, n)
	for i := range all {
		g := gateway{site: "http://" + exampletest.FreeAddress(t), admin: exampletest.FreeAddress(t)}
		var text strings.Builder
		fmt.Fprintf(&text, "{\nadmin %s\nlog {\nexclude admin.api\n}\nosmosis {\nkafka %s\n", g.admin, strings.Join(brokers, " "))
		fmt.Fprintf(&text, "token {\nkey what-all-the-gateways-have-in-common\n}\nstreams {\nmax_open_per_client 20000\n}\n}\n}\n%s {\n", g.site)
		for _, topic := range topics {
			fmt.Fprintf(&text, "osmosis /%s %[1]s {\nscale {\nmax 8\ndrain 5s\nidle 10s\nprocess %s\n}\n}\n", topic, worker)
		}
		text.WriteString("}\n")
		own := t.TempDir()
		file := filepath.Join(own, "Caddyfile")
		if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		g.Process = exampletest.Start(t, fmt.Sprint("gateway ", i), []string{program, "run", "--config", file}, "XDG_DATA_HOME="+own, "XDG_CONFIG_HOME="+own)
		g.AwaitSite(g.site)
		all[i] = g
	}
	return all
}

// table asks the gateway about a topic.
func (g gateway) table(topic string) *table {
	return &table{client: &http.Client{Timeout: 5 * time.Second}, url: "http://" + g.admin + "/osmosis/scale", topic: topic}
}

// jobs makes jobs for a topic, to be posted to the gateway.
func (g gateway) jobs(topic string, milliseconds float64, times ...time.Duration) *flood {
	return &flood{client: newClient(), url: g.site + "/" + topic, times: times, milliseconds: milliseconds}
}

// steady gives the times of so many jobs a second between two times.
func steady(perSecond float64, from, to time.Duration) []time.Duration {
	var times []time.Duration
	for at := from; at < to; at += time.Duration(float64(time.Second) / perSecond) {
		times = append(times, at)
	}
	return times
}

// watched is what was told of a topic, again and again.
type watched struct {
	topic string
	began time.Time
	looks []look
}

type look struct {
	state
	at time.Duration
}

// watch asks until the context ends. What it gives is complete when ended is closed.
func (g gateway) watch(ctx context.Context, topic string, began time.Time) (*watched, <-chan struct{}) {
	w, ended := &watched{topic: topic, began: began}, make(chan struct{})
	tick := time.NewTicker(100 * time.Millisecond)
	t := g.table(topic)
	go func() {
		defer close(ended)
		defer tick.Stop()
		for ctx.Err() == nil {
			if s, err := t.ask(ctx); err == nil && s.Deciding && s.Reason != "" {
				w.looks = append(w.looks, look{s, time.Since(began)})
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return w, ended
}

// changes gives the looks at which another number was wanted than before.
func (w *watched) changes() []look {
	return slices.CompactFunc(slices.Clone(w.looks), func(a, b look) bool { return a.Desired == b.Desired })
}

// turns counts how often the number went up after it went down, or the other way round.
func (w *watched) turns() int {
	n, last := 0, 0
	changes := w.changes()
	for i := 1; i < len(changes); i++ {
		way := cmp.Compare(changes[i].Desired, changes[i-1].Desired)
		if last != 0 && way != last {
			n++
		}
		last = way
	}
	return n
}

// between gives the smallest and the largest number that was wanted between two times.
func (w *watched) between(from, to time.Duration) (least, most int) {
	least = 1 << 30
	for _, l := range w.looks {
		if l.at >= from && l.at <= to {
			least, most = min(least, l.Desired), max(most, l.Desired)
		}
	}
	return least, most
}

// String is the table of the decisions.
func (w *watched) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d changes, %d turns\n", w.topic, max(0, len(w.changes())-1), w.turns())
	for _, l := range w.changes() {
		fmt.Fprintf(&b, "%6.1fs  in %3.0f/s  backlog %4d  oldest %5.1fs  running %d  %s\n", l.at.Seconds(), l.Inflow, l.Backlog, l.Oldest, l.Running, l.Reason)
	}
	return b.String()
}

// stretch has what takes so many seconds in CI take longer where the environment
// says so.
func stretch(t *testing.T) func(seconds float64) time.Duration {
	times := 1.0
	if text := os.Getenv("OSMOSIS_LOOP_STRETCH"); text != "" {
		if _, err := fmt.Sscan(text, &times); err != nil || times < 1 {
			t.Fatalf("OSMOSIS_LOOP_STRETCH is a number from 1, not %q", text)
		}
	}
	return func(seconds float64) time.Duration {
		return time.Duration(times * seconds * float64(time.Second))
	}
}

// TestTheLoopOnRealKafka has three topics at once on one Kafka, which is killed
// and started again: one with a spike of ten times as many jobs, one in which a
// job takes very long, and one with a record that every worker dies of.
func TestTheLoopOnRealKafka(t *testing.T) {
	t.Parallel()
	seconds := stretch(t)
	end := seconds(45)
	cluster := kafkatest.Start(t, kafkatest.Options{})
	g := gateways(t, 1, cluster.Addresses(), "spike", "slow", "deadly")[0]
	ctx, cancel := context.WithTimeout(t.Context(), end+patience)
	defer cancel()

	spike := slices.Concat(steady(4, 0, end), steady(36, seconds(12), seconds(22)))
	slices.Sort(spike)
	floods := []*flood{
		g.jobs("spike", 100, spike...),
		g.jobs("slow", 100, steady(8, 0, end)...),
		g.jobs("slow", float64(seconds(10).Milliseconds()), seconds(12)),
		g.jobs("deadly", 100, steady(8, 0, end)...),
	}
	// Kafka has just started, and the topics are made by the first job.
	for _, topic := range []string{"spike", "slow", "deadly"} {
		first := g.jobs(topic, 100, 0)
		await(ctx, t, "a job is done", func() bool {
			first.run(ctx)
			return len(first.waits) > 0
		})
	}
	began := time.Now()
	at := func(d time.Duration) <-chan time.Time { return time.After(time.Until(began.Add(d))) }
	looking, stop := context.WithCancel(ctx)
	defer stop()
	var topics []*watched
	var ended []<-chan struct{}
	for _, topic := range []string{"spike", "slow", "deadly"} {
		w, done := g.watch(looking, topic, began)
		topics, ended = append(topics, w), append(ended, done)
	}
	flooded := make(chan struct{}, len(floods))
	for _, f := range floods {
		go func() {
			f.run(ctx)
			flooded <- struct{}{}
		}()
	}

	<-at(seconds(12))
	deadly := poison(ctx, t, cluster.Addresses(), "deadly")
	<-at(seconds(26))
	down := time.Since(began)
	cluster.Kill()
	<-at(seconds(29))
	cluster.Restart()
	up := time.Since(began)
	<-at(seconds(40))
	deadly.remove(ctx, t)
	for range floods {
		select {
		case <-flooded:
		case <-ctx.Done():
			t.Fatal("not all jobs were done")
		}
	}
	done := time.Since(began)
	stop()
	for _, e := range ended {
		<-e
	}

	t.Logf("poison at %.0fs, removed at %.0fs; Kafka was away from %.1fs to %.1fs; all was done at %.1fs",
		seconds(12).Seconds(), seconds(40).Seconds(), down.Seconds(), up.Seconds(), done.Seconds())
	for i, f := range floods {
		t.Logf("%s: %s", filepath.Base(f.url), f)
		if f.lost() > 0 || f.accepted == 0 {
			t.Errorf("flood %d: %d accepted, %d lost", i, f.accepted, f.lost())
		}
	}
	for _, w := range topics {
		t.Log(w)
		if least, most := w.between(down, up+5*time.Second); least < 1 || most < least {
			t.Errorf("%s: no workers were wanted while Kafka was away", w.topic)
		}
		if n := w.turns(); n > 4*int(max(1, end.Minutes())) {
			t.Errorf("%s: the number went up and down, %d turns", w.topic, n)
		}
	}
	if _, most := topics[0].between(seconds(12), down); most < 4 {
		t.Errorf("40 jobs a second of 100 ms each had %d workers at most", most)
	}
}

// poisoned is a record that workers die of.
type poisoned struct {
	admin  *kadm.Client
	record *kgo.Record
}

// poison puts one onto a topic: its reply is to go to a partition that is not there.
func poison(ctx context.Context, t *testing.T, brokers []string, topic string) poisoned {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	record := &kgo.Record{Topic: topic, Headers: []kgo.RecordHeader{
		{Key: ":method", Value: []byte("POST")}, {Key: ":path", Value: []byte("/" + topic)},
		{Key: "kafka_correlationId", Value: []byte("poison")}, {Key: "kafka_replyTopic", Value: []byte("osmosis.replies")},
		{Key: "kafka_replyPartition", Value: binary.BigEndian.AppendUint32(nil, 1_000_000)},
	}}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	return poisoned{kadm.NewClient(client), record}
}

// remove deletes it, and what was before it.
func (p poisoned) remove(ctx context.Context, t *testing.T) {
	t.Helper()
	offsets := make(kadm.Offsets)
	offsets.AddOffset(p.record.Topic, p.record.Partition, p.record.Offset+1, -1)
	answers, err := p.admin.DeleteRecords(ctx, offsets)
	if err != nil {
		t.Fatal(err)
	}
	if err := answers.Error(); err != nil {
		t.Fatal(err)
	}
}

// TestAnotherGatewayTakesOverOnRealKafka kills the one of two gateways that
// decides. Only one of them has workers at any time, those of the dead one end,
// and nothing is lost.
func TestAnotherGatewayTakesOverOnRealKafka(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	both := gateways(t, 2, cluster.Addresses(), "work")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var states [2]state
	await(ctx, t, "one of them decides", func() bool {
		for i, g := range both {
			states[i], _ = g.table("work").ask(ctx)
		}
		return states[0].Deciding != states[1].Deciding
	})
	first, second := both[0], both[1]
	if states[1].Deciding {
		first, second = second, first
	}

	looking, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	w, ended := second.watch(looking, "work", began)
	f := second.jobs("work", 100, steady(20, 0, 30*time.Second)...)
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		f.run(ctx)
	}()
	var s state
	await(ctx, t, "workers of the first", func() bool {
		s, _ = first.table("work").ask(ctx)
		return s.Running >= 2
	})
	if strings.Contains(second.Printed(), `"worker started"`) {
		t.Error("both gateways have started workers")
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	group := func() int {
		groups, err := kadm.NewClient(client).DescribeGroups(ctx, "work")
		if err != nil {
			t.Fatal(err)
		}
		return len(groups["work"].Members)
	}
	await(ctx, t, "they are in the group", func() bool { return group() >= 2 })

	killed := time.Now()
	first.Kill()
	await(ctx, t, "the dead gateway's workers are gone", func() bool { return group() == 0 || strings.Contains(second.Printed(), `"worker started"`) })
	t.Logf("after SIGKILL of the gateway with %d workers the group was empty, or others were there, in %.1fs", s.Running, time.Since(killed).Seconds())
	await(ctx, t, "the second has workers", func() bool {
		s, _ = second.table("work").ask(ctx)
		return s.Deciding && s.Running > 0
	})
	t.Logf("the other gateway had workers after %.1fs", time.Since(killed).Seconds())
	await(ctx, t, "nobody but them is in the group", func() bool {
		s, _ = second.table("work").ask(ctx)
		return s.Running > 0 && s.Running == group()
	})
	<-flooded
	await(ctx, t, "no workers are left", func() bool {
		s, err := second.table("work").ask(ctx)
		return err == nil && s.Desired == 0 && s.Running == 0 && group() == 0
	})
	stop()
	<-ended
	t.Log(f)
	t.Log(w)
	if f.lost() > 0 || f.accepted < len(f.times) {
		t.Errorf("%d of %d accepted, %d lost", f.accepted, len(f.times), f.lost())
	}
}

// await waits for something.
func await(ctx context.Context, t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not in time", what)
		}
	}
}
