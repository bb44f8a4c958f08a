// Command ingress measures the way in: many clients post at once, and each gets
// its 202 when the broker has the record.
//
//	go run ./bench/ingress [-rounds 3] [-duration 1s] [-profile ingress.pprof]
//
// Contenders take turns within every round. For each it tells the requests per
// second, the server's CPU seconds for 10,000 requests, and both as ratios to
// Caddy's own `respond 202`, which queues nothing, and to the naive Caddy
// handler. See README.md.
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
	connections = flag.Int("connections", 64, "keep-alive connections, each with one request at a time")
	size        = flag.Int("body", 1024, "size of the JSON body, in `bytes`")
	partitions  = flag.Int("partitions", 8, "partitions of the request topics")
	keys        = flag.Int("keys", 1000, "different keys of the keyed run")
	rounds      = flag.Int("rounds", 3, "rounds; figures are medians over them")
	duration    = flag.Duration("duration", time.Second, "time of each contender in a round")
	few         = flag.Bool("few", false, "leave out the servers that are not Caddy")
	before      = flag.String("before", "", "a `program` built earlier from ./bench/peers/caddy, to compare its Osmosis with today's")
	profile     = flag.String("profile", "", "after the rounds, load Osmosis alone for 10 × the duration, write its CPU profile to this `file` and print its top")
)

func main() { rig.Main(run) }

// sample is what one contender did in one round.
type sample struct {
	rate float64 // requests/s
	cpu  float64 // of the server, CPU-s per 10,000
	own  float64 // of the load generator, the same
}

func run(ctx context.Context, r *rig.Rig) error {
	kafka, err := r.Kafka(ctx)
	if err != nil {
		return err
	}
	contest := rig.Contest{Kafka: kafka, Partitions: *partitions}
	kinds := []rig.Kind{rig.Respond, rig.Osmosis, rig.Naive}
	if !*few {
		kinds = append(kinds, rig.GroupCommit, rig.Franz, rig.Writer)
	}
	contenders, err := r.Contenders(ctx, contest, kinds...)
	if err != nil {
		return err
	}
	if *before != "" {
		p, _, err := r.Before(ctx, contest, *before)
		if err != nil {
			return err
		}
		contenders = append(contenders, p)
	}
	for _, keyed := range []bool{true, false} {
		heading := fmt.Sprintf("Ingress, %d connections, %d B, %d partitions, ", *connections, *size, *partitions)
		if keyed {
			heading += fmt.Sprintf("%d keys", *keys)
		} else {
			heading += "no keys"
		}
		r.Say("%s", heading)
		for _, p := range contenders { // caches, connections, the broker's compiler
			if _, err := measure(ctx, p, keyed); err != nil {
				return err
			}
		}
		samples, err := rig.Rounds(*rounds, len(contenders), func(_, i int) (sample, error) {
			return measure(ctx, contenders[i], keyed)
		})
		if err != nil {
			return err
		}
		table(r, heading, contenders, samples)
	}
	if *profile != "" {
		p := contenders[rig.Osmosis]
		return r.ProfileUnder(ctx, p, 10**duration, *profile, func(long time.Duration) error {
			_, err := exchange(p, true).Run(ctx, long)
			return err
		})
	}
	return nil
}

// requests are what clients send to a contender.
func requests(p *rig.Process, keyed bool) [][]byte {
	if !keyed {
		return [][]byte{load.Post(p.Site, "/orders", load.JSON(*size))}
	}
	var all [][]byte
	for i := range *keys {
		all = append(all, load.Post(p.Site, "/orders", load.JSON(*size), fmt.Sprintf("X-Customer: customer-%d", i)))
	}
	return all
}

func exchange(p *rig.Process, keyed bool) load.Exchange {
	return load.Exchange{Address: p.Site, Connections: *connections, Requests: requests(p, keyed), Status: 202}
}

// measure loads one contender.
func measure(ctx context.Context, p *rig.Process, keyed bool) (sample, error) {
	x := exchange(p, keyed)
	before, err := p.CPU()
	if err != nil {
		return sample{}, err
	}
	own := rig.OwnCPU()
	result, err := x.Run(ctx, *duration)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w", p.Name, err)
	}
	own = rig.OwnCPU() - own
	after, err := p.CPU()
	return sample{
		rate: result.PerSecond(),
		cpu:  rig.Per10000(after-before, result.Answers),
		own:  rig.Per10000(own, result.Answers),
	}, err
}

// table prints what was found.
func table(r *rig.Rig, heading string, contenders []*rig.Process, samples [][]sample) {
	rate := func(s sample) float64 { return s.rate }
	cpu := func(s sample) float64 { return s.cpu }
	own := func(s sample) float64 { return s.own }
	t := rig.Table{Head: []string{"", "requests/s", "CPU-s per 10,000", "rate ÷ `respond`", "rate ÷ naive", "CPU ÷ `respond`", "CPU ÷ naive", "generator's CPU-s"}}
	for i, p := range contenders {
		t.Add(p.Name,
			fmt.Sprintf("%.0f", rig.Median(rig.Each(samples[i], rate))),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu))),
			rig.Ratio(rig.Each(samples[i], rate), rig.Each(samples[rig.Respond], rate)),
			rig.Ratio(rig.Each(samples[i], rate), rig.Each(samples[rig.Naive], rate)),
			rig.Ratio(rig.Each(samples[i], cpu), rig.Each(samples[rig.Respond], cpu)),
			rig.Ratio(rig.Each(samples[i], cpu), rig.Each(samples[rig.Naive], cpu)),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], own))))
	}
	t.Write(r.Out, heading)
}
