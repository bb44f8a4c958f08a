// Command roundtrip measures the whole way: a client posts, a worker answers,
// and the client has the reply on its event stream.
//
//	go run ./bench/roundtrip [-rounds 3] [-duration 1s] [-inflight 1,64] [-profile roundtrip.pprof]
//
// Contenders take turns within every round. For each it tells the quantiles of
// the time from sending the request to the reply event, and the median as a
// ratio to the same two hops between bare franz-go clients, with no HTTP
// around them. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/hops"
	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// Flags.
var (
	size       = flag.Int("body", 1024, "size of the JSON body, in `bytes`; the reply has the same")
	partitions = flag.Int("partitions", 8, "partitions of the request topics")
	inflight   = flag.String("inflight", "1,64", "how many requests are under way at a time; a run for each `number`")
	rounds     = flag.Int("rounds", 3, "rounds; figures are medians over them")
	duration   = flag.Duration("duration", time.Second, "time of each contender in a round")
	before     = flag.String("before", "", "a `program` built earlier from ./bench/peers/caddy, to compare its Osmosis with today's")
	profile    = flag.String("profile", "", "after the rounds, load Osmosis alone for 10 × the duration, write its CPU profile to this `file` and print its top")
)

func main() { rig.Main(run) }

// contender is one of those that are compared.
type contender struct {
	name    string
	process *rig.Process // nil: there is no server
	trip    func(ctx context.Context, inflight int, duration time.Duration) (load.Result, error)
}

// Where Osmosis stands in the list. The first is what others are compared with.
const ours = 1

func run(ctx context.Context, r *rig.Rig) error {
	contenders, err := start(ctx, r)
	if err != nil {
		return err
	}
	numbers, err := parse(*inflight)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := compare(ctx, r, contenders, n); err != nil {
			return err
		}
	}
	if *profile == "" {
		return nil
	}
	c := contenders[ours]
	return r.ProfileUnder(ctx, c.process, 10**duration, *profile, func(long time.Duration) error {
		_, err := c.trip(ctx, numbers[len(numbers)-1], long)
		return err
	})
}

func parse(list string) (numbers []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-inflight has %q; write numbers with commas, such as 1,64", text)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// start starts servers and workers.
func start(ctx context.Context, r *rig.Rig) ([]contender, error) {
	kafka, err := r.Kafka(ctx)
	if err != nil {
		return nil, err
	}
	clients, err := hops.New(ctx, r, kafka, *partitions, *size)
	if err != nil {
		return nil, err
	}
	all := []contender{{name: "franz-go clients, no HTTP", trip: clients.Trip}}
	contest := rig.Contest{Kafka: kafka, Partitions: *partitions, Replies: true}
	servers, err := r.Contenders(ctx, contest, rig.Osmosis, rig.Franz, rig.Writer)
	if err != nil {
		return nil, err
	}
	topics := []string{hops.RequestTopic, contest.Topic(rig.Osmosis), contest.Topic(rig.Franz)}
	if *before != "" {
		p, topic, err := r.Before(ctx, contest, *before)
		if err != nil {
			return nil, err
		}
		servers, topics = append(servers, p), append(topics, topic)
	}
	for _, p := range servers {
		request := load.Post(p.Site, "/orders", load.JSON(*size))
		all = append(all, contender{name: p.Name, process: p, trip: func(ctx context.Context, inflight int, duration time.Duration) (load.Result, error) {
			return load.Trip{Address: p.Site, Connections: inflight, Request: request}.Run(ctx, duration)
		}})
	}
	const worker = "./bench/peers/worker"
	if _, err := r.Peer(ctx, "worker with franz-go", worker, "-kafka", kafka, "-client", "franz-go",
		"-topics", strings.Join(topics, ",")); err != nil {
		return nil, err
	}
	_, err = r.Peer(ctx, "worker with kafka-go", worker, "-kafka", kafka, "-client", "kafka-go", "-topics", contest.Topic(rig.Writer))
	return all, err
}

// sample is what one contender did in one round.
type sample struct {
	p50, p99 time.Duration
	rate     float64 // round trips a second
	cpu      float64 // of the server, CPU-s per 10,000
}

// compare runs all rounds with one number of requests under way.
func compare(ctx context.Context, r *rig.Rig, contenders []contender, inflight int) error {
	heading := fmt.Sprintf("Round trip, %d in flight, %d B each way, POST to reply event", inflight, *size)
	r.Say("%s", heading)
	for _, c := range contenders { // caches, connections, the broker's compiler
		if _, err := measure(ctx, c, inflight); err != nil {
			return err
		}
	}
	samples, err := rig.Rounds(*rounds, len(contenders), func(_, i int) (sample, error) {
		return measure(ctx, contenders[i], inflight)
	})
	if err != nil {
		return err
	}
	p50 := func(s sample) time.Duration { return s.p50 }
	p99 := func(s sample) time.Duration { return s.p99 }
	rate := func(s sample) float64 { return s.rate }
	cpu := func(s sample) float64 { return s.cpu }
	t := rig.Table{Head: []string{"", "p50", "p99", "p50 ÷ clients", "trips/s", "server's CPU-s per 10,000"}}
	for i, c := range contenders {
		used := "–"
		if c.process != nil {
			used = fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu)))
		}
		t.Add(c.name,
			rig.Millis(rig.Median(rig.Each(samples[i], p50))),
			rig.Millis(rig.Median(rig.Each(samples[i], p99))),
			rig.Ratio(rig.Each(samples[i], p50), rig.Each(samples[0], p50)),
			fmt.Sprintf("%.0f", rig.Median(rig.Each(samples[i], rate))), used)
	}
	t.Write(r.Out, heading)
	return nil
}

// measure has one contender make round trips.
func measure(ctx context.Context, c contender, inflight int) (s sample, err error) {
	var before, after time.Duration
	if c.process != nil {
		if before, err = c.process.CPU(); err != nil {
			return s, err
		}
	}
	result, err := c.trip(ctx, inflight, *duration)
	if err != nil {
		return s, fmt.Errorf("%s: %w", c.name, err)
	}
	if c.process != nil {
		after, err = c.process.CPU()
	}
	return sample{
		p50:  rig.Median(result.Latencies),
		p99:  rig.Quantile(result.Latencies, 0.99),
		rate: result.PerSecond(),
		cpu:  rig.Per10000(after-before, result.Answers),
	}, err
}
