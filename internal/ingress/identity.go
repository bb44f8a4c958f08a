package ingress

import (
	"context"
	"fmt"
	"math"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

const (
	noProducer = -1
	// maxSequence is where a partition goes on to the next epoch, which begins
	// at 0, because sequences must not come near their wrap: Kafka and kfake
	// wrap at different numbers. No batch has a million records.
	maxSequence = math.MaxInt32 - 1<<20
)

// identity is what makes a batch idempotent. Every partition has a producer id
// of its own: to the broker that is no difference, since it keeps what it knows
// of a producer by partition, and giving up on one partition then stops and
// renumbers no other.
type identity struct {
	producer int64 // noProducer: none yet
	epoch    int16
	sequence int32 // of the next batch's first record
}

// advance counts records that are in the log.
func (id *identity) advance(n int) {
	id.sequence += int32(n) //nolint:gosec // a batch is far smaller
	if id.sequence > maxSequence {
		id.raise()
	}
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

// identify gets a producer id for a partition, which is held until there is one.
// A fresh Kafka answers with coordinator errors for some seconds.
func (t *topic) identify(part *partition) {
	part.held = true
	t.p.work.Go(func() {
		id, err := t.p.identity()
		t.mu.Lock()
		defer t.mu.Unlock()
		if err == nil {
			part.id, part.held = id, false
			t.wakeAll()
			return
		}
		t.cause = err
		if final(err) {
			refused := fmt.Errorf("topic %q: %w: %w", t.name, ErrRefused, err)
			t.each(func(e *entry) { t.refuse(e, refused) })
			part.held = false
			return
		}
		if c := t.p.logger.Check(zap.DebugLevel, "no producer id yet"); c != nil {
			c.Write(topicField(t.name), zap.Int32("partition", part.number), zap.Error(err))
		}
		t.hold(part)
	})
}

// identity asks a broker for a producer id.
func (p *Producer) identity() (identity, error) {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTimeout)
	defer cancel()
	answer, err := p.config.Broker.API().InitProducerID(ctx, &kafka.InitProducerIDRequest{ProducerID: noProducer, ProducerEpoch: noProducer})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return identity{}, fmt.Errorf("get a producer id: %w", err)
	}
	return identity{producer: int64(answer.Producer.ProducerID), epoch: int16(answer.Producer.ProducerEpoch)}, nil //nolint:gosec // it was an int16 on the wire
}
