// Package hops makes round trips through Kafka alone: what a request and its
// reply cost with no HTTP around them. Other ways of doing both are compared
// with it.
//
// # Concurrency
//
// Trip is for one goroutine; it has one of its own for each request under way.
package hops

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/bench/load"
	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// RequestTopic is where the requests go. Whoever wants trips has a worker read it.
const RequestTopic = "clients"

// Where the replies come, and the headers that the worker knows.
const (
	answerTopic = "clients-replies"

	correlationID  = "kafka_correlationId"
	replyTopic     = "kafka_replyTopic"
	replyPartition = "kafka_replyPartition"
)

// Clients are two: one produces requests, one consumes replies, both without linger.
type Clients struct {
	producer   *kgo.Client
	partitions int
	body       []byte

	mu      sync.Mutex
	waiting map[string]chan struct{}
}

// New makes the clients and their topics, with so many partitions each. Bodies
// are of the given size, in bytes. The clients work until ctx ends.
func New(ctx context.Context, r *rig.Rig, kafka string, partitions, size int) (*Clients, error) {
	if err := r.CreateTopics(ctx, kafka, partitions, RequestTopic, answerTopic); err != nil {
		return nil, err
	}
	c := &Clients{partitions: partitions, body: load.JSON(size), waiting: make(map[string]chan struct{})}
	var err error
	if c.producer, err = kgo.NewClient(kgo.SeedBrokers(kafka), kgo.DefaultProduceTopic(RequestTopic), kgo.ProducerLinger(0)); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	consumer, err := kgo.NewClient(kgo.SeedBrokers(kafka), kgo.ConsumeTopics(answerTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	go func() {
		for ctx.Err() == nil {
			fetches := consumer.PollFetches(ctx)
			fetches.EachRecord(c.deliver)
		}
	}()
	return c, nil
}

// deliver wakes whoever waits for a reply.
func (c *Clients) deliver(rec *kgo.Record) {
	for _, h := range rec.Headers {
		if h.Key != correlationID {
			continue
		}
		c.mu.Lock()
		done, ok := c.waiting[string(h.Value)]
		delete(c.waiting, string(h.Value))
		c.mu.Unlock()
		if ok {
			close(done)
		}
	}
}

// Trip keeps the given number of requests under way. A latency is the time from
// producing a request to the reply.
func (c *Clients) Trip(ctx context.Context, inflight int, duration time.Duration) (load.Result, error) {
	began := time.Now()
	until := began.Add(duration)
	var mu sync.Mutex
	var result load.Result
	var going sync.WaitGroup
	failed := make(chan error, inflight)
	for i := range inflight {
		going.Go(func() {
			for time.Now().Before(until) {
				sent := time.Now()
				if err := c.one(ctx, i%c.partitions); err != nil {
					failed <- err
					return
				}
				took := time.Since(sent)
				mu.Lock()
				result.Answers++
				result.Latencies = append(result.Latencies, took)
				mu.Unlock()
			}
		})
	}
	going.Wait()
	result.Elapsed = time.Since(began)
	select {
	case err := <-failed:
		return result, err
	default:
		return result, nil
	}
}

// one makes one round trip.
func (c *Clients) one(ctx context.Context, partition int) error {
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	id, done := rand.Text(), make(chan struct{})
	c.mu.Lock()
	c.waiting[id] = done
	c.mu.Unlock()
	c.producer.Produce(ctx, &kgo.Record{Value: c.body, Headers: []kgo.RecordHeader{
		{Key: correlationID, Value: []byte(id)},
		{Key: replyTopic, Value: []byte(answerTopic)},
		{Key: replyPartition, Value: binary.BigEndian.AppendUint32(nil, uint32(partition))}, //nolint:gosec // a handful
	}}, nil)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for a reply: %w", ctx.Err())
	}
}
