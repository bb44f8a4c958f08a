// Command handover measures how long requests wait while gateways that deliver
// join and leave, and long tries are under way on other keys.
//
//	go run ./bench/handover [-rounds 1] [-long 30s] [-rate 200] [-history 10000] [-kill=false]
//
// Three members deliver a topic to a site in this process. Quick requests come
// at a steady rate. Meanwhile a fourth member joins, the oldest one leaves, and at
// last one is killed. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// Flags.
var (
	partitions = flag.Int("partitions", 12, "partitions of the topic")
	members    = flag.Int("members", 3, "how many deliver before one joins")
	jobs       = flag.Int("jobs", 64, "long tries under way; half of them are streamed")
	long       = flag.Duration("long", 30*time.Second, "how long each takes: longer than the windows of a join and of a leaving, or they end before")
	quick      = flag.Int("rate", 200, "quick requests a second")
	keys       = flag.Int("keys", 300, "how many keys they have")
	size       = flag.Int("body", 1024, "size of their body, in `bytes`")
	history    = flag.Int("history", 10_000, "requests of each partition that were done before; who takes it over reads them")
	calm       = flag.Duration("calm", 4*time.Second, "length of the windows in which nothing happens")
	after      = flag.Duration("after", 5*time.Second, "how much of an event's window is after it")
	kill       = flag.Bool("kill", true, "at last kill a member")
	rounds     = flag.Int("rounds", 1, "rounds; the figures are of all of them together")
	logs       = flag.String("logs", "", "write what the members have logged into this `folder`")
)

// Topics.
const (
	topic   = "orders"
	replies = "replies"
	control = "control"
)

// patience bounds what should take seconds.
const patience = time.Minute

// before is how much of an event's window is before it.
const before = time.Second

// killed is how much of the window of a kill is after it: the group waits 10 s for
// a member that says nothing.
const killed = 14 * time.Second

func main() { rig.Main(run) }

func run(ctx context.Context, r *rig.Rig) error {
	b, err := newBench(ctx, r)
	if err != nil {
		return err
	}
	defer b.close()
	for range *members {
		if err := b.join(ctx); err != nil {
			return err
		}
	}
	if err := b.joined(ctx, *members); err != nil {
		return err
	}
	b.traffic.start(ctx)
	if err := b.traffic.steady(ctx); err != nil {
		return err
	}
	for range *rounds {
		if err := b.round(ctx); err != nil {
			return err
		}
	}
	if *kill {
		if err := b.killOne(ctx); err != nil {
			return err
		}
	}
	b.traffic.end()
	return b.report()
}

// bench is a run.
type bench struct {
	*rig.Rig
	kafka   string
	client  *kgo.Client
	admin   *kadm.Client
	site    *site
	traffic *traffic
	members []*rig.Process // the oldest first
	all     []*rig.Process
	windows []window
}

func newBench(ctx context.Context, r *rig.Rig) (*bench, error) {
	address, err := r.Kafka(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.CreateTopics(ctx, address, *partitions, topic, replies), r.CreateTopics(ctx, address, 1, control)); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	b := &bench{Rig: r, kafka: address, client: client, admin: kadm.NewClient(client)}
	if b.site, err = newSite(); err != nil {
		client.Close()
		return nil, err
	}
	b.traffic = newTraffic(client, b.site)
	r.Say("%d requests of each partition were done before", *history)
	if err := b.past(ctx); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bench) close() {
	b.site.close()
	b.client.Close()
}

// past puts requests on the topic that count as done.
func (b *bench) past(ctx context.Context) error {
	if err := b.traffic.history(ctx, *history**partitions); err != nil {
		return err
	}
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = b.admin.CommitAllOffsets(ctx, topic, ends.Offsets())
	}
	if err != nil {
		return fmt.Errorf("commit what was done before: %w", err)
	}
	return nil
}

// join starts a member.
func (b *bench) join(ctx context.Context) error {
	m, err := b.Peer(ctx, fmt.Sprintf("member %d", len(b.all)+1), "./bench/peers/member",
		"-kafka", b.kafka, "-topic", topic, "-control", control, "-site", b.site.url, "-drain", (*long + *calm).String())
	if err != nil {
		return err
	}
	b.members, b.all = append(b.members, m), append(b.all, m)
	return nil
}

// leave has the oldest member leave.
func (b *bench) leave(ctx context.Context) error {
	m := b.members[0]
	b.members = b.members[1:]
	leave := url.URL{Scheme: "http", Host: m.Site.String(), Path: "/leave"}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, leave.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("have a member leave: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("have a member leave: %w", err)
	}
	return response.Body.Close()
}

// joined waits until the group has so many members, and each its share.
func (b *bench) joined(ctx context.Context, members int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		groups, err := b.admin.DescribeGroups(ctx, topic)
		group := groups[topic]
		if err == nil && group.State == "Stable" && len(group.Members) == members && len(group.AssignedPartitions()[topic]) == *partitions {
			return nil
		}
		const interval = 100 * time.Millisecond
		if !pause(ctx, interval) {
			return fmt.Errorf("wait for %d members: %d are there: %w", members, len(group.Members), errors.Join(ctx.Err(), err))
		}
	}
}

// round has a member join and the oldest one leave while the long tries run.
func (b *bench) round(ctx context.Context) error {
	from, err := b.begin(ctx)
	if err != nil {
		return err
	}
	for _, event := range []struct {
		name    string
		members int // after it
		happen  func(context.Context) error
	}{
		{"a member joins", *members + 1, b.join},
		{"a member leaves", *members, b.leave},
	} {
		b.Say("%s", event.name)
		if err := b.quiet(ctx, event.name); err != nil {
			return err
		}
		if err := b.event(ctx, event.name, *after, event.happen); err != nil {
			return err
		}
		if err := b.joined(ctx, event.members); err != nil {
			return err
		}
	}
	return b.site.await(ctx, from, *jobs, ended)
}

// killOne kills the oldest member. Its tries are lost, which is not looked at.
func (b *bench) killOne(ctx context.Context) error {
	if _, err := b.begin(ctx); err != nil {
		return err
	}
	const name = "a member is killed"
	b.Say(name)
	if err := b.quiet(ctx, name); err != nil {
		return err
	}
	b.site.forgive()
	return b.event(ctx, name, killed, func(context.Context) error {
		b.members[0].Stop()
		b.members = b.members[1:]
		return nil
	})
}

// begin sends long requests and waits until all of them are being tried.
func (b *bench) begin(ctx context.Context) (from int, err error) {
	from, err = b.traffic.long(ctx, *jobs)
	if err != nil {
		return 0, err
	}
	return from, b.site.await(ctx, from, *jobs, begun)
}

// calmBefore begins the names of the windows before events.
const calmBefore = "calm before "

// quiet is the window before an event, with which the event's is compared.
func (b *bench) quiet(ctx context.Context, name string) error {
	began := time.Now()
	if !pause(ctx, *calm) {
		return ctx.Err()
	}
	b.windows = append(b.windows, window{calmBefore + name, began, time.Now()})
	return nil
}

// event has something happen, and its window be remembered.
func (b *bench) event(ctx context.Context, name string, after time.Duration, happen func(context.Context) error) error {
	began := time.Now()
	if !pause(ctx, before) {
		return ctx.Err()
	}
	happened := time.Now()
	if err := happen(ctx); err != nil {
		return err
	}
	if !pause(ctx, after-time.Since(happened)) {
		return ctx.Err()
	}
	b.windows = append(b.windows, window{name, began, time.Now()})
	return nil
}

// pause waits, and reports whether ctx did not end before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
