package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// patience bounds how long a backlog may take.
const patience = 2 * time.Minute

// drain compares how fast a backlog on one partition is worked off with what
// the concurrency allows, and with as many clients at a proxy before the same site.
func (b *bench) drain(ctx context.Context) error {
	heading := fmt.Sprintf("Backlog of %d on one partition, %d at a time, %s of work each", *backlog, *concurrency, *work)
	b.Say("%s", heading)
	site, err := b.Peer(ctx, "the site that takes its time", upstream, "-work", work.String())
	if err != nil {
		return err
	}
	plain, err := b.Caddy(ctx, "Caddy `reverse_proxy`", "", "\t"+proxy(site))
	if err != nil {
		return err
	}
	gateway, err := b.filler(ctx)
	if err != nil {
		return err
	}
	names := []string{"Caddy `reverse_proxy`, as many clients", "**Osmosis** `deliver`"}
	list := requests(plain.Site, "/orders")
	samples, err := rig.Rounds(*rounds, len(names), func(round, i int) (sample, error) {
		if i > 0 {
			return b.drainOne(ctx, gateway, site, round)
		}
		return measure(plain, names[i], func() (load.Result, error) {
			return load.Exchange{Address: plain.Site, Connections: *concurrency, Requests: list, Status: 200}.Run(ctx, *duration)
		})
	})
	if err != nil {
		return err
	}
	most := float64(*concurrency) / work.Seconds()
	t := rig.Table{Head: []string{"", "records/s", fmt.Sprintf("rate ÷ %.0f/s", most), "rate ÷ proxy", "CPU-s per 10,000"}}
	for i, name := range names {
		rates := rig.Each(samples[i], rate)
		t.Add(name, fmt.Sprintf("%.0f", rig.Median(rates)), rig.Median(rates)/most,
			rig.Ratio(rates, rig.Each(samples[0], rate)),
			fmt.Sprintf("%.3f", rig.Median(rig.Each(samples[i], cpu))))
	}
	t.Write(b.Out, heading)
	return nil
}

// topic is the one of a round.
func topic(round int) string { return fmt.Sprintf("backlog-%d", round) }

// filler starts a gateway that queues, and delivers nothing.
func (b *bench) filler(ctx context.Context) (*rig.Process, error) {
	var site strings.Builder
	for round := range *rounds {
		if err := b.CreateTopics(ctx, b.kafka, 1, topic(round)); err != nil {
			return nil, err
		}
		fmt.Fprintf(&site, "\tosmosis /%s %[1]s {\n\t\tkey {http.request.header.X-Customer}\n\t}\n", topic(round))
	}
	return b.Caddy(ctx, "the gateway that queues", b.global("backlog"), site.String())
}

// drainOne queues a backlog, and then starts a gateway that delivers it.
func (b *bench) drainOne(ctx context.Context, gateway, site *rig.Process, round int) (s sample, err error) {
	list := make([][]byte, *keys)
	for i := range list {
		list[i] = load.Post(gateway.Site, "/"+topic(round), load.JSON(*size), fmt.Sprintf("X-Customer: customer-%d", i))
	}
	x := load.Exchange{Address: gateway.Site, Connections: *connections, Requests: list, Status: 202, Limit: *backlog}
	if _, err := x.Run(ctx, patience); err != nil {
		return s, err
	}
	served := fmt.Sprintf("http://%s/served", site.Site)
	if err := ask(ctx, http.MethodDelete, served, nil); err != nil {
		return s, err
	}
	p, err := b.Caddy(ctx, "**Osmosis** `deliver`", b.global("backlog"), fmt.Sprintf(
		"\tosmosis_deliver %s inside {\n\t\tconcurrency %d\n\t\t%s\n\t}", topic(round), *concurrency, proxy(site)))
	if err != nil {
		return s, err
	}
	defer p.Stop()
	before, err := p.CPU()
	if err != nil {
		return s, err
	}
	within, err := drained(ctx, served)
	if err != nil {
		return s, fmt.Errorf("%w:\n%s", err, p.Log())
	}
	after, err := p.CPU()
	return sample{rate: float64(*backlog) / within.Seconds(), cpu: rig.Per10000(after-before, *backlog)}, err
}

// drained waits until the site has answered all, and gives the time from its
// first request to its last answer.
func drained(ctx context.Context, served string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var told struct {
			Served int           `json:"served"`
			Within time.Duration `json:"within"`
		}
		if err := ask(ctx, http.MethodGet, served, &told); err != nil {
			return 0, err
		}
		if told.Served >= *backlog {
			return told.Within, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for the backlog: %d of %d are answered: %w", told.Served, *backlog, ctx.Err())
		}
	}
}

// ask sends a request without a body to the site, and reads its answer into into,
// if that is not nil.
func ask(ctx context.Context, method, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask the site: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the site: %w", err)
	}
	defer response.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		return fmt.Errorf("read what the site has served: %w", err)
	}
	return nil
}
