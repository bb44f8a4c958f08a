// Command deliver measures what a queue in front of a site costs, when the
// gateway itself takes the requests out of it and to the site.
//
//	go run ./bench/deliver [-rounds 3] [-duration 1s] [-inflight 1,64] [-concurrency 200] [-profile deliver.pprof]
//
// Contenders take turns within every round. There are three parts: the whole
// loop, from the request over Kafka and the site to its answer, against the same
// site behind `reverse_proxy`; one key among many that always fails; and a
// backlog on one partition before a site that takes its time. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// Flags.
var (
	parts       = flag.String("parts", "loop,poison,backlog", "the `parts` to run, with commas")
	size        = flag.Int("body", 1024, "size of the JSON body, in `bytes`; the answer has the same")
	partitions  = flag.Int("partitions", 8, "partitions of the request topics, but for the backlog's")
	keys        = flag.Int("keys", 1000, "how many keys requests have")
	inflight    = flag.String("inflight", "1,64", "how many requests are under way at a time in the whole loop; a run for each `number`")
	connections = flag.Int("connections", 64, "connections in the part with a poisoned key")
	concurrency = flag.Int("concurrency", 200, "how many requests of the backlog are tried at a time")
	work        = flag.Duration("work", 50*time.Millisecond, "how long each of them takes")
	backlog     = flag.Int("backlog", 10_000, "how many there are")
	rounds      = flag.Int("rounds", 3, "rounds; figures are medians over them")
	duration    = flag.Duration("duration", time.Second, "time of each contender in a round")
	profile     = flag.String("profile", "", "after the whole loop, load Osmosis alone for 10 × the duration, write its CPU profile to this `file` and print its top")
)

func main() { rig.Main(run) }

func run(ctx context.Context, r *rig.Rig) error {
	kafka, err := r.Kafka(ctx)
	if err != nil {
		return err
	}
	b := &bench{Rig: r, kafka: kafka}
	if b.site, err = r.Peer(ctx, "the site", upstream); err != nil {
		return err
	}
	todo := map[string]func(context.Context) error{"loop": b.wholeLoop, "poison": b.poison, "backlog": b.drain}
	for name := range strings.SplitSeq(*parts, ",") {
		part, ok := todo[name]
		if !ok {
			return fmt.Errorf("-parts has %q; write some of loop,poison,backlog", name)
		}
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// upstream is the program that is the site.
const upstream = "./bench/peers/upstream"

// bench is what the parts share.
type bench struct {
	*rig.Rig
	kafka string
	site  *rig.Process // answers at once
}

// proxy gives a directive that passes requests on.
func proxy(to *rig.Process) string { return fmt.Sprintf("reverse_proxy %s", to.Site) }

// global gives the global options, with a reply topic.
func (b *bench) global(topic string) string {
	return fmt.Sprintf("\tosmosis {\n\t\tkafka %s\n\t\treplies %s-replies\n\t}", b.kafka, topic)
}

// queue starts a gateway that queues /orders on a topic of its own and delivers
// what it queues to the site, with the given options.
func (b *bench) queue(ctx context.Context, name, topic, options string) (*rig.Process, error) {
	if err := b.CreateTopics(ctx, b.kafka, *partitions, topic, topic+".dlq"); err != nil {
		return nil, err
	}
	return b.Caddy(ctx, name, b.global(topic), fmt.Sprintf(
		"\tosmosis /orders %s {\n\t\tkey {http.request.header.X-Customer}\n\t\tdeliver {\n%s\t\t\t%s\n\t\t}\n\t}", topic, options, proxy(b.site)))
}

// requests gives a request for each key that waits for its answer.
func requests(to netip.AddrPort, path string) [][]byte {
	all := make([][]byte, *keys)
	for i := range all {
		all[i] = load.Post(to, path, load.JSON(*size), fmt.Sprintf("X-Customer: customer-%d", i), "Prefer: wait=20")
	}
	return all
}

// sample is what one contender did in one round.
type sample struct {
	p50, p99 time.Duration
	rate     float64 // answers a second
	cpu      float64 // of the gateway, CPU-s per 10,000
}

// The figures of a sample.
func p50(s sample) time.Duration { return s.p50 }
func p99(s sample) time.Duration { return s.p99 }
func rate(s sample) float64      { return s.rate }
func cpu(s sample) float64       { return s.cpu }

// measure takes the figures of a run, and the processor time that a process has
// used meanwhile, if there is one.
func measure(p *rig.Process, name string, do func() (load.Result, error)) (s sample, err error) {
	var before, after time.Duration
	if p != nil {
		if before, err = p.CPU(); err != nil {
			return s, err
		}
	}
	result, err := do()
	if err != nil {
		return s, fmt.Errorf("%s: %w", name, err)
	}
	if p != nil {
		after, err = p.CPU()
	}
	return sample{
		p50:  rig.Median(result.Latencies),
		p99:  rig.Quantile(result.Latencies, 0.99),
		rate: result.PerSecond(),
		cpu:  rig.Per10000(after-before, result.Answers),
	}, err
}
