package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
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
	names := []string{"Caddy `reverse_proxy`, as many clients", "**Osmosis** `deliver`, `reverse_proxy`", "**Osmosis** `deliver`, the work inside the gateway"}
	list := requests(plain.Site, "/orders")
	samples, err := rig.Rounds(*rounds, len(names), func(round, i int) (sample, error) {
		switch i {
		case 0:
			return measure(plain, names[i], func() (load.Result, error) {
				return load.Exchange{Address: plain.Site, Connections: *concurrency, Requests: list, Status: 200}.Run(ctx, *duration)
			})
		case 1:
			return b.drainOne(ctx, gateway, names[i], topic("proxied", round), proxy(site), site.Site)
		default:
			return b.drainOne(ctx, gateway, names[i], topic("inside", round), "inside_site "+work.String(), netip.AddrPort{})
		}
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

// topic is the one that a contender has in a round.
func topic(contender string, round int) string { return fmt.Sprintf("backlog-%s-%d", contender, round) }

// filler starts a gateway that queues, and delivers nothing.
func (b *bench) filler(ctx context.Context) (*rig.Process, error) {
	var site strings.Builder
	for round := range *rounds {
		for _, topic := range []string{topic("proxied", round), topic("inside", round)} {
			if err := b.CreateTopics(ctx, b.kafka, 1, topic); err != nil {
				return nil, err
			}
			fmt.Fprintf(&site, "\tosmosis /%s %[1]s {\n\t\tkey {http.request.header.X-Customer}\n\t}\n", topic)
		}
	}
	return b.Caddy(ctx, "the gateway that queues", b.global("backlog"), site.String())
}

// drainOne queues a backlog, and then starts a gateway that delivers it to a site,
// by the given directive. Without an address the site is in that gateway.
func (b *bench) drainOne(ctx context.Context, gateway *rig.Process, name, topic, directive string, site netip.AddrPort) (s sample, err error) {
	list := make([][]byte, *keys)
	for i := range list {
		list[i] = load.Post(gateway.Site, "/"+topic, load.JSON(*size), fmt.Sprintf("X-Customer: customer-%d", i))
	}
	x := load.Exchange{Address: gateway.Site, Connections: *connections, Requests: list, Status: 202, Limit: *backlog}
	if _, err := x.Run(ctx, patience); err != nil {
		return s, err
	}
	if site.IsValid() {
		if err := ask(ctx, http.MethodDelete, served(site), nil); err != nil {
			return s, err
		}
	}
	p, err := b.Caddy(ctx, name, b.global("backlog"), fmt.Sprintf(
		"\tosmosis_deliver %s inside {\n\t\tconcurrency %d\n\t\t%s\n\t}\n\tinside_site", topic, *concurrency, directive))
	if err != nil {
		return s, err
	}
	if !site.IsValid() {
		site = p.Site
	}
	defer p.Stop()
	before, err := p.CPU()
	if err != nil {
		return s, err
	}
	within, err := drained(ctx, served(site))
	if err != nil {
		return s, fmt.Errorf("%w:\n%s", err, p.Log())
	}
	after, err := p.CPU()
	return sample{rate: float64(*backlog) / within.Seconds(), cpu: rig.Per10000(after-before, *backlog)}, err
}

// served is where a site tells what it has answered.
func served(site netip.AddrPort) string { return fmt.Sprintf("http://%s/served", site) }

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
