package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/hops"
	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// contender is one of those that are compared.
type contender struct {
	name    string
	process *rig.Process // nil: there is no server
	run     func(ctx context.Context, inflight int, duration time.Duration) (load.Result, error)
}

// Where they stand in the list.
const (
	bare    = iota // Kafka with no HTTP
	proxied        // HTTP with no Kafka
	queued         // both
)

// wholeLoop compares a site behind a queue with the same site behind a proxy.
// Clients wait for the site's answer in both cases.
func (b *bench) wholeLoop(ctx context.Context) error {
	contenders, err := b.contenders(ctx)
	if err != nil {
		return err
	}
	last := 0
	for text := range strings.SplitSeq(*inflight, ",") {
		if last, err = strconv.Atoi(text); err != nil || last < 1 {
			return fmt.Errorf("-inflight has %q; write numbers with commas, such as 1,64", text)
		}
		if err := b.compare(ctx, contenders, last); err != nil {
			return err
		}
	}
	for _, c := range contenders[proxied:] {
		defer c.process.Stop()
	}
	if *profile == "" {
		return nil
	}
	c := contenders[queued]
	return b.ProfileUnder(ctx, c.process, 10**duration, *profile, func(long time.Duration) error {
		_, err := c.run(ctx, last, long)
		return err
	})
}

// contenders starts those of the whole loop.
func (b *bench) contenders(ctx context.Context) ([]contender, error) {
	clients, err := hops.New(ctx, b.Rig, b.kafka, *partitions, *size)
	if err != nil {
		return nil, err
	}
	if _, err := b.Peer(ctx, "worker", "./bench/peers/worker", "-kafka", b.kafka, "-topics", hops.RequestTopic); err != nil {
		return nil, err
	}
	all := []contender{{name: "Kafka alone, franz-go clients", run: clients.Trip}}
	plain, err := b.Caddy(ctx, "Caddy `reverse_proxy`", "", "\t"+proxy(b.site))
	if err != nil {
		return nil, err
	}
	ours, err := b.queue(ctx, "**Osmosis** `deliver`, clients wait", "loop", "")
	if err != nil {
		return nil, err
	}
	for _, p := range []*rig.Process{plain, ours} {
		list := requests(p.Site, "/orders")
		all = append(all, contender{name: p.Name, process: p, run: func(ctx context.Context, inflight int, duration time.Duration) (load.Result, error) {
			return load.Exchange{Address: p.Site, Connections: inflight, Requests: list, Status: 200}.Run(ctx, duration)
		}})
	}
	return all, nil
}

// compare runs all rounds with one number of requests under way.
func (b *bench) compare(ctx context.Context, contenders []contender, inflight int) error {
	heading := fmt.Sprintf("Whole loop, %d in flight, %d B each way, POST to the site's answer", inflight, *size)
	b.Say("%s", heading)
	one := func(i int) (sample, error) {
		c := contenders[i]
		return measure(c.process, c.name, func() (load.Result, error) { return c.run(ctx, inflight, *duration) })
	}
	for i := range contenders { // caches, connections, the broker's compiler
		if _, err := one(i); err != nil {
			return err
		}
	}
	samples, err := rig.Rounds(*rounds, len(contenders), func(_, i int) (sample, error) { return one(i) })
	if err != nil {
		return err
	}
	hop, direct := rig.Each(samples[bare], p50), rig.Each(samples[proxied], p50)
	t := rig.Table{Head: []string{"", "p50", "p99", "(p50 − proxy's) ÷ Kafka's p50", "records/s", "rate ÷ proxy", "gateway's CPU-s per 10,000"}}
	for i, c := range contenders {
		added, used := any("–"), any("–")
		if i == queued {
			times := rig.Each(samples[i], p50)
			for round := range times {
				times[round] -= direct[round]
			}
			added = rig.Ratio(times, hop)
		}
		if c.process != nil {
			used = fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu)))
		}
		t.Add(c.name,
			rig.Millis(rig.Median(rig.Each(samples[i], p50))),
			rig.Millis(rig.Median(rig.Each(samples[i], p99))),
			added,
			fmt.Sprintf("%.0f", rig.Median(rig.Each(samples[i], rate))),
			rig.Ratio(rig.Each(samples[i], rate), rig.Each(samples[proxied], rate)), used)
	}
	t.Write(b.Out, heading)
	return nil
}
