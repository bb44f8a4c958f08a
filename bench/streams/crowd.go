package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

const (
	// opening is how many streams are being opened at a time, and requests posted.
	opening = 64
	// perAddress is how many streams come from one source address, half of what
	// the gateway's default allows a client.
	perAddress = 500
	// patience bounds every wait.
	patience = 60 * time.Second
	// rest is how long a crowd is watched doing nothing.
	rest = 2 * time.Second
)

// crowd is a server with open streams.
type crowd struct {
	process       *rig.Process
	before, after rig.Memory // opening the streams

	loop    *load.Loop
	streams []stream
	turn    int // the stream whose turn it is to get a reply
	kafka   *kgo.Client

	opened  int
	replies *replying // the round under way
}

// stream is where a reply to one of the requests goes.
type stream struct {
	id        []byte
	topic     string
	partition int32
}

// gather starts a server and opens streams on it.
func gather(ctx context.Context, r *rig.Rig, kafka string, kind rig.Kind, count int) (*crowd, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	const partitions = 8
	contest := rig.Contest{Kafka: kafka, Partitions: partitions, Replies: true, Suffix: fmt.Sprintf("-%d", count)}
	servers, err := r.Contenders(ctx, contest, kind)
	if err != nil {
		return nil, err
	}
	c := &crowd{process: servers[0]}
	paths, err := c.post(ctx, count)
	if err != nil {
		return nil, err
	}
	if kind == rig.Idle {
		count = 0 // it queued none
	}
	if err := c.connect(ctx, kafka, contest.Topic(kind), count); err != nil {
		return nil, err
	}
	if c.loop, err = load.NewLoop(); err != nil {
		return nil, err
	}
	if c.before, err = c.process.Memory(ctx); err != nil {
		return nil, err
	}
	if err := c.open(ctx, paths); err != nil {
		return nil, err
	}
	return c, c.settle(ctx)
}

// settle waits until the process has the memory that it keeps: Go's runtime
// returns bit by bit what opening the streams took.
func (c *crowd) settle(ctx context.Context) error {
	for began := time.Now(); ; {
		if err := c.wait(ctx, *settle); err != nil {
			return err
		}
		before := c.after.Resident
		var err error
		if c.after, err = c.process.Memory(ctx); err != nil {
			return err
		}
		if before > 0 && c.after.Resident > before-before/50 || time.Since(began) > patience {
			return nil
		}
	}
}

func (c *crowd) close() {
	c.loop.Close()
	c.kafka.Close()
	c.process.Stop()
}

// post sends requests and gives the paths of their streams.
func (c *crowd) post(ctx context.Context, count int) (paths []string, err error) {
	x := load.Exchange{
		Address: c.process.Site, Connections: opening, Status: 202, Limit: count,
		Requests: [][]byte{load.Post(c.process.Site, "/orders", load.JSON(256))},
		Answer:   func(h load.Head) { paths = append(paths, string(h.Location)) },
	}
	if _, err = x.Run(ctx, patience); err == nil && len(paths) != count {
		err = fmt.Errorf("%s: %d of %d requests were answered within %s", c.process.Name, len(paths), count, patience)
	}
	return paths, err
}

// connect reads the requests as a worker would, to know where replies go.
func (c *crowd) connect(ctx context.Context, kafka, topic string, count int) (err error) {
	c.kafka, err = kgo.NewClient(kgo.SeedBrokers(kafka), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	for len(c.streams) < count {
		fetches := c.kafka.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read the requests of %s: %w", c.process.Name, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			var s stream
			for _, h := range rec.Headers {
				switch h.Key {
				case "kafka_correlationId":
					s.id = h.Value
				case "kafka_replyTopic":
					s.topic = string(h.Value)
				case "kafka_replyPartition":
					s.partition = int32(binary.BigEndian.Uint32(h.Value)) //nolint:gosec // as it was written
				}
			}
			c.streams = append(c.streams, s)
		})
	}
	c.kafka.PauseFetchTopics(topic)
	return nil
}

// open opens all streams and returns when each has sent its first event.
func (c *crowd) open(ctx context.Context, paths []string) error {
	for begun := 0; c.opened < len(paths) && ctx.Err() == nil; {
		for begun < len(paths) && begun-c.opened < opening {
			n := begun / perAddress
			from := netip.AddrFrom4([4]byte{127, 0, byte(1 + n/250), byte(1 + n%250)}) //nolint:gosec // a few hundred
			conn, err := c.loop.Dial(c.process.Site, from, &follower{crowd: c})
			if err != nil {
				return err
			}
			if err := conn.Send(load.Follow(c.process.Site, paths[begun])); err != nil {
				return err
			}
			begun++
		}
		was := c.opened
		if err := c.loop.Run(ctx, func() bool { return c.opened > was }); err != nil {
			return fmt.Errorf("open a stream on %s: %w", c.process.Name, err)
		}
	}
	return ctx.Err()
}

// idle gives the part of one processor that the server uses while nothing happens.
func (c *crowd) idle(ctx context.Context) (float64, error) {
	before, err := c.process.CPU()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := c.wait(ctx, rest); err != nil {
		return 0, err
	}
	after, err := c.process.CPU()
	return float64(after-before) / float64(time.Since(began)), err
}

// wait lets time pass.
func (c *crowd) wait(ctx context.Context, long time.Duration) error {
	began := time.Now()
	return c.loop.Run(ctx, func() bool { return time.Since(began) > long })
}
