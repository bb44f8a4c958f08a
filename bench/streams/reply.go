package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// inflight is how many replies are on their way at a time.
const inflight = 64

// sample is what a round of replies has come to.
type sample struct {
	p50, p99 time.Duration
	cpu      float64 // of the server, CPU-s per 10,000
}

// replying is a round of replies while it runs.
type replying struct {
	sent      []time.Time
	latencies []time.Duration
	count     int
	failed    chan error
}

// reply sends replies to all streams in turn, each when an earlier one has
// arrived. They say that more follow, so the streams stay open.
func (c *crowd) reply(ctx context.Context, count int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	round := &replying{count: count, failed: make(chan error, 1)}
	c.replies = round
	before, err := c.process.CPU()
	if err != nil {
		return sample{}, err
	}
	for range min(inflight, count, len(c.streams)) {
		c.next()
	}
	if err := c.loop.Run(ctx, func() bool { return len(round.latencies) == count || len(round.failed) > 0 }); err != nil {
		return sample{}, fmt.Errorf("%s: %w", c.process.Name, err)
	}
	select {
	case err := <-round.failed:
		return sample{}, fmt.Errorf("produce a reply: %w", err)
	default:
	}
	if err := ctx.Err(); err != nil {
		return sample{}, fmt.Errorf("%s: %d of %d replies have arrived: %w", c.process.Name, len(round.latencies), count, err)
	}
	after, err := c.process.CPU()
	return sample{
		p50: rig.Median(round.latencies),
		p99: rig.Quantile(round.latencies, 0.99),
		cpu: rig.Per10000(after-before, count),
	}, err
}

// next produces a reply. Its number comes back with the event.
func (c *crowd) next() {
	round := c.replies
	to := c.streams[c.turn%len(c.streams)]
	c.turn++
	rec := &kgo.Record{
		Topic: to.topic, Partition: to.partition, Value: fmt.Appendf(nil, "%d %s", len(round.sent), filling),
		Headers: []kgo.RecordHeader{{Key: "kafka_correlationId", Value: to.id}, {Key: "osmosis-more", Value: []byte("true")}},
	}
	round.sent = append(round.sent, time.Now())
	c.kafka.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err != nil {
			select {
			case round.failed <- err:
			default:
			}
		}
	})
}

// filling makes a reply the size of a small answer.
var filling = bytes.Repeat([]byte("x"), 200)

// follower is the client of one stream.
type follower struct {
	crowd  *crowd
	open   bool // the head has come
	begun  bool // and an event
	events load.Events
}

var errEnded = errors.New("a stream has ended that should stay open")

// Receive reads events.
func (f *follower) Receive(_ *load.Conn, in []byte) (consumed int, err error) {
	if !f.open {
		head, complete, err := load.ParseHead(in)
		if err != nil || !complete {
			return 0, err
		}
		if head.Status != 200 || !head.Chunked {
			return 0, fmt.Errorf("an answer of another kind than a stream: %.1000q", in)
		}
		f.open, consumed = true, head.Size
	}
	n, over, err := f.events.Read(in[consumed:], f.event)
	if over {
		return consumed, errEnded
	}
	return consumed + n, err
}

// event counts the stream as open, and looks which reply it is.
func (f *follower) event(event []byte) error {
	if !f.begun {
		f.begun = true
		f.crowd.opened++
	}
	if !load.IsReply(event) {
		return nil
	}
	_, data, _ := bytes.Cut(event, []byte("data: "))
	number, _, _ := bytes.Cut(data, []byte(" "))
	n, err := strconv.Atoi(string(number))
	round := f.crowd.replies
	if err != nil || round == nil || n >= len(round.sent) {
		return fmt.Errorf("not a reply that was sent: %q", event)
	}
	round.latencies = append(round.latencies, time.Since(round.sent[n]))
	if len(round.sent) < round.count {
		f.crowd.next()
	}
	return nil
}
