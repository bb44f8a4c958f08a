package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/produce"
)

// senders is how many produce calls are under way at a time.
const senders = 2

// groupCommit produces with kafka-go's low-level call: two senders take turns,
// each takes all that waits and sends it as one request. What comes meanwhile
// is the next batch.
type groupCommit struct {
	transport  *kafka.Transport
	partitions int

	mu      sync.Mutex
	filled  *sync.Cond
	waiting []waiter
	turn    int // the partition for records without a key
}

type waiter struct {
	record protocol.Record
	done   chan error
}

func newGroupCommit() (*groupCommit, error) {
	g := &groupCommit{transport: &kafka.Transport{MetadataTopics: []string{*topic}}}
	g.filled = sync.NewCond(&g.mu)
	client := &kafka.Client{Addr: kafka.TCP(*broker), Transport: g.transport}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{*topic}})
	if err != nil {
		return nil, fmt.Errorf("ask for the topic's partitions: %w", err)
	}
	g.partitions = len(m.Topics[0].Partitions)
	for range senders {
		go g.send()
	}
	return g, nil
}

func (g *groupCommit) produce(_ context.Context, m message) error {
	rec := protocol.Record{Value: protocol.NewBytes(m.value)}
	if m.key != nil {
		rec.Key = protocol.NewBytes(m.key)
	}
	for _, h := range m.headers {
		rec.Headers = append(rec.Headers, protocol.Header{Key: h.name, Value: h.value})
	}
	w := waiter{record: rec, done: make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.mu.Unlock()
	g.filled.Signal()
	return <-w.done
}

// send is one sender.
func (g *groupCommit) send() {
	var taken []waiter
	for {
		g.mu.Lock()
		for len(g.waiting) == 0 {
			g.filled.Wait()
		}
		taken, g.waiting = g.waiting, taken[:0]
		g.turn = (g.turn + 1) % g.partitions
		turn := g.turn
		g.mu.Unlock()
		err := g.call(taken, turn)
		for _, w := range taken {
			w.done <- err
		}
	}
}

// call sends records as one request, those without a key all to one partition.
func (g *groupCommit) call(taken []waiter, turn int) error {
	byPartition := make([][]protocol.Record, g.partitions)
	var balancer kafka.Murmur2Balancer
	numbers := make([]int, g.partitions)
	for i := range numbers {
		numbers[i] = i
	}
	for _, w := range taken {
		at := turn
		if key := w.record.Key; key != nil {
			text, err := protocol.ReadAll(key)
			if err != nil {
				return err
			}
			at = balancer.Balance(kafka.Message{Key: text}, numbers...)
			w.record.Key = protocol.NewBytes(text)
		}
		byPartition[at] = append(byPartition[at], w.record)
	}
	to := produce.RequestTopic{Topic: *topic}
	for i, records := range byPartition {
		if len(records) == 0 {
			continue
		}
		to.Partitions = append(to.Partitions, produce.RequestPartition{
			Partition: int32(i), //nolint:gosec // a handful
			RecordSet: protocol.RecordSet{Version: 2, Records: protocol.NewRecordReader(records...)},
		})
	}
	request := &produce.Request{Acks: -1, Timeout: 10_000, Topics: []produce.RequestTopic{to}}
	answer, err := g.transport.RoundTrip(context.Background(), kafka.TCP(*broker), request)
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	for _, t := range answer.(*produce.Response).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode != 0 {
				return fmt.Errorf("produce to partition %d: %w", p.Partition, kafka.Error(p.ErrorCode))
			}
		}
	}
	return nil
}
