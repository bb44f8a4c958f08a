// Command latency measures how long one client alone waits for its 202: nothing
// to batch, nothing to hide behind.
//
//	go run ./bench/latency [-rounds 5] [-duration 500ms] [-profile latency.pprof]
//
// Contenders take turns within every round. For each it tells the quantiles of
// the time from sending a request to its answer, and the median as a ratio to
// that of a bare net/http server with kafka-go's produce calls. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// Flags.
var (
	size       = flag.Int("body", 1024, "size of the JSON body, in `bytes`")
	partitions = flag.Int("partitions", 8, "partitions of the request topics")
	rounds     = flag.Int("rounds", 5, "rounds; figures are medians over them")
	duration   = flag.Duration("duration", 500*time.Millisecond, "time of each contender in a round")
	profile    = flag.String("profile", "", "after the rounds, load Osmosis alone for 10 × the duration, write its CPU profile to this `file` and print its top")
)

func main() { rig.Main(run) }

// sample is what one contender did in one round.
type sample struct {
	p50, p90, p99 time.Duration
	cpu           float64 // of the server, CPU-s per 10,000
}

// The contenders, the one that others are compared with first.
var kinds = []rig.Kind{rig.GroupCommit, rig.Osmosis, rig.Naive, rig.Franz, rig.Writer, rig.Respond}

func run(ctx context.Context, r *rig.Rig) error {
	kafka, err := r.Kafka(ctx)
	if err != nil {
		return err
	}
	contenders, err := r.Contenders(ctx, rig.Contest{Kafka: kafka, Partitions: *partitions}, kinds...)
	if err != nil {
		return err
	}
	heading := fmt.Sprintf("Latency, 1 connection, %d B, POST to 202", *size)
	r.Say("%s", heading)
	for _, p := range contenders { // caches, connections, the broker's compiler
		if _, err := measure(ctx, p); err != nil {
			return err
		}
	}
	samples, err := rig.Rounds(*rounds, len(contenders), func(_, i int) (sample, error) {
		return measure(ctx, contenders[i])
	})
	if err != nil {
		return err
	}
	p50 := func(s sample) time.Duration { return s.p50 }
	p90 := func(s sample) time.Duration { return s.p90 }
	p99 := func(s sample) time.Duration { return s.p99 }
	cpu := func(s sample) float64 { return s.cpu }
	t := rig.Table{Head: []string{"", "p50", "p90", "p99", "p50 ÷ group commit", "CPU-s per 10,000"}}
	for i, p := range contenders {
		t.Add(p.Name,
			rig.Millis(rig.Median(rig.Each(samples[i], p50))),
			rig.Millis(rig.Median(rig.Each(samples[i], p90))),
			rig.Millis(rig.Median(rig.Each(samples[i], p99))),
			rig.Ratio(rig.Each(samples[i], p50), rig.Each(samples[0], p50)),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu))))
	}
	t.Write(r.Out, heading)
	if *profile == "" {
		return nil
	}
	return r.ProfileUnder(ctx, contenders[1], 10**duration, *profile, func(long time.Duration) error {
		_, err := exchange(contenders[1]).Run(ctx, long)
		return err
	})
}

func exchange(p *rig.Process) load.Exchange {
	request := load.Post(p.Site, "/orders", load.JSON(*size), "X-Customer: alice")
	return load.Exchange{Address: p.Site, Connections: 1, Requests: [][]byte{request}, Status: 202}
}

// measure has one client send one request after the other.
func measure(ctx context.Context, p *rig.Process) (sample, error) {
	before, err := p.CPU()
	if err != nil {
		return sample{}, err
	}
	result, err := exchange(p).Run(ctx, *duration)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	after, err := p.CPU()
	return sample{
		p50: rig.Median(result.Latencies),
		p90: rig.Quantile(result.Latencies, 0.9),
		p99: rig.Quantile(result.Latencies, 0.99),
		cpu: rig.Per10000(after-before, result.Answers),
	}, err
}
