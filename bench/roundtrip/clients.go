package main

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

// The topics of the bare clients, and the headers that the worker knows.
const (
	requestTopic = "clients"
	answerTopic  = "clients-replies"

	correlationID  = "kafka_correlationId"
	replyTopic     = "kafka_replyTopic"
	replyPartition = "kafka_replyPartition"
)

// clients make round trips through Kafka alone: one produces requests, one
// consumes replies, both without linger.
type clients struct {
	producer *kgo.Client
	body     []byte

	mu      sync.Mutex
	waiting map[string]chan struct{}
}

func newClients(ctx context.Context, r *rig.Rig, kafka string) (*clients, error) {
	if err := r.CreateTopics(ctx, kafka, *partitions, requestTopic, answerTopic); err != nil {
		return nil, err
	}
	c := &clients{body: load.JSON(*size), waiting: make(map[string]chan struct{})}
	var err error
	if c.producer, err = kgo.NewClient(kgo.SeedBrokers(kafka), kgo.DefaultProduceTopic(requestTopic), kgo.ProducerLinger(0)); err != nil {
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
func (c *clients) deliver(rec *kgo.Record) {
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

// trip keeps the given number of requests under way.
func (c *clients) trip(ctx context.Context, inflight int, duration time.Duration) (load.Result, error) {
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
				if err := c.one(ctx, i%*partitions); err != nil {
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
func (c *clients) one(ctx context.Context, partition int) error {
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
