package hub

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// runProbes asks for ends until the hub closes. One question is under way at a
// time and speaks for all who wanted to know when it was asked, so a crowd of
// new subscriptions costs no more questions than one.
func (t *tail) runProbes(ctx context.Context) {
	var pause backoff.Backoff
	for {
		select {
		case <-t.probes:
		case <-ctx.Done():
			return
		}
		failed := false
		for topic, asked := range t.curious() {
			if err := t.ask(ctx, asked); err != nil {
				failed = true
				t.hub.log.Debug("ends of logs not known", zap.String("topic", topic.name), zap.Int32("broker", t.leader), zap.Error(err))
				topic.outdated()
			}
		}
		if !failed {
			pause.Reset()
			continue
		}
		pause.Sleep(ctx)
		t.probe()
	}
}

// question is what to ask of one topic.
type question struct {
	is         broker.Topic
	partitions map[int32]*partition
	// begin has those whose log's start is wanted too.
	begin []int32
	// strange has those for which this broker was not vouched for yet.
	strange []int32
}

// curious collects, by topic, the partitions whose ends someone wants to know.
func (t *tail) curious() map[*topic]*question {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	questions := make(map[*topic]*question)
	for p := range t.partitions {
		end, begin, strange := p.curious(t)
		if !end {
			continue
		}
		q := questions[p.topic]
		if q == nil {
			q = &question{is: p.topic.is, partitions: make(map[int32]*partition)}
			questions[p.topic] = q
		}
		q.partitions[p.index] = p
		if begin {
			q.begin = append(q.begin, p.index)
		}
		if strange {
			q.strange = append(q.strange, p.index)
		}
	}
	return questions
}

// curious tells whether someone wants to know the log's end, and its start, and
// whether it is not known yet that the tail's broker means this life of the topic.
func (p *partition) curious(t *tail) (end, begin, strange bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.log.known || !p.log.high.after(p.wanted), !p.log.known, p.vouched != t
}

// meet has the tail's broker vouched for where it was not. The partitions for
// which it cannot be are left out of the question.
func (t *tail) meet(ctx context.Context, q *question) error {
	known, err := vouched(ctx, t.hub.broker, q.is, q.strange)
	for _, index := range q.strange {
		if !slices.Contains(known, index) {
			delete(q.partitions, index)
			continue
		}
		p := q.partitions[index]
		p.mu.Lock()
		p.vouched = t
		p.mu.Unlock()
	}
	q.begin = slices.DeleteFunc(q.begin, func(index int32) bool { return q.partitions[index] == nil })
	if err == nil && len(known) < len(q.strange) {
		err = kafka.LeaderNotAvailable
	}
	return err
}

// ask asks for the ends of one topic's partitions.
func (t *tail) ask(ctx context.Context, q *question) error {
	var strangeErr error
	if len(q.strange) > 0 {
		strangeErr = t.meet(ctx, q)
	}
	if len(q.partitions) == 0 {
		return strangeErr
	}
	tick := t.hub.tick()
	var starts map[int32]int64
	var startErr error
	if len(q.begin) > 0 {
		starts, startErr = t.hub.broker.Offsets(ctx, q.is, q.begin, broker.LogStart)
	}
	highs, err := t.hub.broker.Offsets(ctx, q.is, slices.Collect(maps.Keys(q.partitions)), broker.HighWatermark)
	if err == nil && len(highs) < len(q.partitions) {
		err = kafka.LeaderNotAvailable
	}
	for index, high := range highs {
		p := q.partitions[index]
		if start, ok := starts[index]; ok {
			p.found(start, high, tick)
			t.change()
		} else {
			p.fresh(high, tick)
		}
	}
	return errors.Join(strangeErr, startErr, err)
}

// offset asks the partition's leader for one offset: a position of broker.Offsets.
func (h *Hub) offset(ctx context.Context, p *partition, at int64) (int64, error) {
	h.mu.Lock()
	is := p.topic.is
	h.mu.Unlock()
	got, err := h.broker.Offsets(ctx, is, []int32{p.index}, at)
	if offset, ok := got[p.index]; ok {
		return offset, nil
	}
	if err == nil {
		err = kafka.LeaderNotAvailable
	}
	return 0, err
}
