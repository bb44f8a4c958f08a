package ingress

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// attemptTimeout bounds one call, so that a broker that went silent leaves
// time for a second try within a request's timeout.
const attemptTimeout = 3 * time.Second

// call is what a sender keeps from one call to the next, to reuse it.
type call struct {
	began time.Time // the call, or the sender before its first; under the topic's mutex

	batches []*batch
	wire    []broker.Batch
	acked   []*batch
	offsets []int64
}

// send makes calls to a leader as long as there is something to send.
func (t *topic) send(l *leader, c *call) {
	for {
		now := time.Now()
		t.mu.Lock()
		if !t.alarmed.IsZero() && !now.Before(t.alarmed) {
			t.expire(now)
		}
		c.batches = c.batches[:0]
		if t.mayCall(l, c) {
			c.batches = t.pick(l, c.batches)
		}
		if len(c.batches) == 0 {
			l.calls = slices.DeleteFunc(l.calls, func(other *call) bool { return other == c })
			t.mu.Unlock()
			return
		}
		c.began = now
		if now.Sub(t.asked) > refreshEvery {
			t.ask()
		}
		meta := t.meta
		t.mu.Unlock()
		t.exchange(l, meta, c, now)
	}
}

// exchange makes one call and acts on the verdicts.
func (t *topic) exchange(l *leader, meta broker.Topic, c *call, now time.Time) {
	var last time.Time
	c.wire = c.wire[:0]
	for _, b := range c.batches {
		if !b.encoded.Load() {
			b.bytes = appendBatch(b.bytes, b.part.id, now, b.entries)
			b.encoded.Store(true)
		}
		c.wire = append(c.wire, broker.Batch{Partition: b.part.number, Bytes: b.bytes})
		if b.last.After(last) {
			last = b.last
		}
	}
	// The last deadline of all, not the first: a record with little time left
	// is told when it is over, and must not cut the call short for the others.
	ctx, cancel := context.WithDeadline(t.p.ctx, earliest(last, now.Add(attemptTimeout)))
	verdicts, err := t.p.config.Broker.Produce(ctx, l.broker, meta, c.wire)
	cancel()

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
			if e != nil {
				e.done <- outcome{ack: ack}
			}
			ack.Offset++
		}
		b.release()
	}
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
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
