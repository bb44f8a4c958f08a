package ingress

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// attemptTimeout bounds one call, so that a broker that went silent leaves
	// time for a second try within a request's timeout.
	attemptTimeout = 3 * time.Second

	noProducer = -1
	// maxSequence is where a sequence would come near its wrap. Kafka and kfake
	// wrap at different numbers, so that it never does: a new epoch begins at 0.
	maxSequence = math.MaxInt32 - 1
)

// call is what a sender keeps from one call to the next, to reuse it.
type call struct {
	batches []*batch
	wire    []broker.Batch
	acked   []*batch
	offsets []int64
}

// send makes calls to a leader as long as there is something to send.
func (t *topic) send(l *leader) {
	var c call
	for {
		now := time.Now()
		t.mu.Lock()
		if !t.alarmed.IsZero() && !now.Before(t.alarmed) {
			t.expire(now)
		}
		c.batches = t.pick(l, c.batches[:0])
		if len(c.batches) == 0 {
			l.senders--
			t.mu.Unlock()
			return
		}
		if now.Sub(t.asked) > refreshEvery {
			t.ask()
		}
		meta := t.meta
		t.mu.Unlock()
		t.exchange(l, meta, &c, now)
	}
}

// exchange makes one call and acts on the verdicts.
func (t *topic) exchange(l *leader, meta broker.Topic, c *call, now time.Time) {
	deadline := now.Add(attemptTimeout)
	for _, b := range c.batches {
		if b.deadline.Before(deadline) {
			deadline = b.deadline
		}
	}
	ctx, cancel := context.WithDeadline(t.p.ctx, deadline)
	defer cancel()
	if !t.encode(ctx, c, now) {
		return
	}
	verdicts, err := t.p.config.Broker.Produce(ctx, l.broker, meta, c.wire)

	c.acked, c.offsets = c.acked[:0], c.offsets[:0]
	t.mu.Lock()
	if err != nil {
		t.failed(l, c.batches, err)
	} else {
		l.failures, t.cause = 0, nil
		for i, b := range c.batches {
			v := find(verdicts, i, b.part.number)
			if v.Err == nil {
				c.acked, c.offsets = append(c.acked, b), append(c.offsets, v.BaseOffset)
				t.accept(b)
				continue
			}
			if v.Message != "" {
				v.Err = fmt.Errorf("%w: %s", v.Err, v.Message)
			}
			t.decide(b, v.Err)
		}
	}
	t.settled()
	t.mu.Unlock()

	for i, b := range c.acked {
		ack := Ack{Partition: b.part.number, Offset: c.offsets[i], Incarnation: meta.ID.Incarnation()}
		for _, e := range b.entries {
			e.done <- outcome{ack: ack}
			ack.Offset++
		}
		b.release()
	}
}

// encode writes the batches that are new. It is false when none are left to
// send, because a partition without a producer id got none.
func (t *topic) encode(ctx context.Context, c *call, now time.Time) bool {
	c.wire = c.wire[:0]
	kept := c.batches[:0]
	for _, b := range c.batches {
		if len(b.bytes) == 0 {
			id := &b.part.id
			if id.producer != noProducer && int(id.sequence)+len(b.entries) > maxSequence {
				id.raise()
			}
			if id.producer == noProducer {
				if err := t.identify(ctx, id); err != nil {
					t.unidentified(b, err)
					continue
				}
			}
			b.bytes = appendBatch(b.bytes, *id, now, b.entries)
		}
		kept = append(kept, b)
		c.wire = append(c.wire, broker.Batch{Partition: b.part.number, Bytes: b.bytes})
	}
	c.batches = kept
	return len(kept) > 0
}

// raise begins the next epoch: from its first batch on, the broker refuses all
// that is late of the epochs before. An id has 32,767 of them; then a new one
// is needed, under which a late batch of the old id is not refused.
func (id *identity) raise() {
	id.sequence = 0
	if id.epoch == math.MaxInt16 {
		id.producer = noProducer
		return
	}
	id.epoch++
}

// identify gets a producer id for a partition.
func (t *topic) identify(ctx context.Context, id *identity) error {
	answer, err := t.p.config.Broker.API().InitProducerID(ctx, &kafka.InitProducerIDRequest{ProducerID: noProducer, ProducerEpoch: noProducer})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return fmt.Errorf("get a producer id: %w", err)
	}
	*id = identity{producer: int64(answer.Producer.ProducerID), epoch: int16(answer.Producer.ProducerEpoch)} //nolint:gosec // it was an int16 on the wire
	return nil
}

// find gives the verdict on a partition, which is usually where it was in the request.
func find(verdicts []broker.Produced, i int, partition int32) broker.Produced {
	if i < len(verdicts) && verdicts[i].Partition == partition {
		return verdicts[i]
	}
	for _, v := range verdicts {
		if v.Partition == partition {
			return v
		}
	}
	return broker.Produced{Err: fmt.Errorf("the broker's answer leaves partition %d out", partition)}
}
