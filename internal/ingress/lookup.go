package ingress

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// ask starts a look-up of the topic unless one is under way. The channel
// closes at its end.
func (t *topic) ask() <-chan struct{} {
	if t.asking == nil {
		t.asking = make(chan struct{})
		t.p.work.Go(t.lookUp)
	}
	return t.asking
}

// askLater looks the topic up after a pause, as long as anything waits for it.
func (t *topic) askLater() {
	t.p.work.Go(func() {
		if !t.p.pause(pauseAfter(leaderTries)) {
			return
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.records > 0 {
			t.ask()
		}
	})
}

// leaderTries sets the pause between look-ups while a partition has no leader.
const leaderTries = 3

// lookUp asks for the topic. While it is not known at all, and records wait,
// it asks until it is; a topic that was known is asked for once, since those
// who want to know ask again.
func (t *topic) lookUp() {
	for try := 1; ; try++ {
		meta, err := t.find()
		t.mu.Lock()
		switch {
		case err == nil:
			t.apply(meta)
		case errors.Is(err, ErrTopicMissing), errors.Is(err, ErrRefused) && !t.known:
			t.lose(err)
		default:
			t.cause = err
			if c := t.p.logger.Check(zap.DebugLevel, "topic not found out"); c != nil {
				c.Write(topicField(t.name), zap.Error(err))
			}
		}
		if t.known || t.unplaced.empty() {
			close(t.asking)
			t.asking = nil
			if t.pending == nil && !t.unplaced.empty() {
				t.askLater() // for records whose partition is not known
			}
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		t.p.pause(pauseAfter(try))
	}
}

// find asks a broker for the topic, and Ensure when it is not there.
func (t *topic) find() (broker.Topic, error) {
	t.mu.Lock()
	known := t.known
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.p.ctx, attemptTimeout)
	defer cancel()
	if known {
		meta, err := t.p.config.Broker.Topic(ctx, t.name)
		if !errors.Is(err, kafka.UnknownTopicOrPartition) {
			return meta, err
		}
	}
	meta, err := t.p.config.Ensure(ctx, t.name)
	switch {
	case err == nil:
		return meta, nil
	case errors.Is(err, kafka.UnknownTopicOrPartition):
		return broker.Topic{}, fmt.Errorf("topic %q: %w: %w", t.name, ErrTopicMissing, err)
	case final(err):
		return broker.Topic{}, fmt.Errorf("topic %q: %w: %w", t.name, ErrRefused, err)
	}
	return broker.Topic{}, err
}

// lose refuses all that waits for a topic that is not there. The next record
// asks anew. While batches are in flight the partitions stay: their verdicts
// lead here again.
func (t *topic) lose(err error) {
	t.asked = time.Now()
	t.known = t.busy > 0
	t.each(func(e *entry) { t.refuse(e, err) })
}

func topicField(name string) zap.Field { return zap.String("topic", name) }
