package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// retries has a request that fails given up after three tries, within a second.
const retries = "\t\t\tattempts 3\n\t\t\tbackoff 100ms 1s\n"

// poison compares the throughput of many keys with and without one among them
// whose requests all fail. It sends as many of that key as of any other, for
// which nobody waits; in the comparison those are answered as the rest.
func (b *bench) poison(ctx context.Context) error {
	heading := fmt.Sprintf("One of %d keys fails always, %d connections", *keys, *connections)
	b.Say("%s", heading)
	var all []contender
	for _, c := range []struct{ name, topic, customer string }{
		{"every key is answered", "healthy", "customer-0"},
		{"**one key is poisoned**", "poison", "poisoned"},
	} {
		p, err := b.queue(ctx, c.name, c.topic, retries)
		if err != nil {
			return err
		}
		defer p.Stop()
		list := requests(p.Site, "/orders")
		list[0] = load.Post(p.Site, "/orders", load.JSON(*size), "X-Customer: "+c.customer)
		x := load.Exchange{Address: p.Site, Requests: list, Status: http.StatusOK, Also: http.StatusAccepted}
		all = append(all, contender{name: c.name, process: p, run: func(ctx context.Context, inflight int, duration time.Duration) (load.Result, error) {
			accepted := 0
			x.Connections, x.Answer = inflight, func(h load.Head) {
				if h.Status == http.StatusAccepted {
					accepted++
				}
			}
			result, err := x.Run(ctx, duration)
			if most := result.Answers / *keys + inflight; err == nil && accepted > most {
				err = fmt.Errorf("%d requests have no answer, where %d at most were of the key for which nobody waits:\n%s", accepted, most, p.Log())
			}
			return result, err
		}})
	}
	one := func(i int) (sample, error) {
		c := all[i]
		return measure(c.process, c.name, func() (load.Result, error) { return c.run(ctx, *connections, *duration) })
	}
	for i := range all {
		if _, err := one(i); err != nil {
			return err
		}
	}
	samples, err := rig.Rounds(*rounds, len(all), func(_, i int) (sample, error) { return one(i) })
	if err != nil {
		return err
	}
	t := rig.Table{Head: []string{"", "records/s", "rate ÷ healthy", "p50", "p99", "CPU-s per 10,000", "CPU ÷ healthy"}}
	for i, c := range all {
		t.Add(c.name,
			fmt.Sprintf("%.0f", rig.Median(rig.Each(samples[i], rate))),
			rig.Ratio(rig.Each(samples[i], rate), rig.Each(samples[0], rate)),
			rig.Millis(rig.Median(rig.Each(samples[i], p50))),
			rig.Millis(rig.Median(rig.Each(samples[i], p99))),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu))),
			rig.Ratio(rig.Each(samples[i], cpu), rig.Each(samples[0], cpu)))
	}
	t.Write(b.Out, heading)
	return nil
}
