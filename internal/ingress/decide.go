package ingress

import (
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// The pauses before a next try. They are short against a record's timeout.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
)

// pauseAfter gives the pause before the try after n failed ones.
func pauseAfter(n int) time.Duration { return backoff.Pause(n, firstPause, maxPause) }

// accept notes that a batch is in the log. Its entries are told outside the mutex.
func (t *topic) accept(b *batch) {
	part := b.part
	part.id.advance(len(b.entries))
	part.strikes = 0
	t.cleared(part, len(b.entries))
	for _, e := range b.entries {
		if e != nil {
			t.forget(e)
		}
	}
	t.free(b)
}

// cleared counts down the records among which an invalid one is looked for.
func (t *topic) cleared(part *partition, n int) {
	if part.suspect -= n; part.suspect <= 0 {
		part.suspect, part.cut = 0, 0
	}
}

// failed acts on a call that failed as a whole. What was surely not sent may
// go elsewhere; the rest is unclear. The leader gets a pause either way.
func (t *topic) failed(l *leader, batches []*batch, err error) {
	t.cause = err
	notSent := errors.Is(err, broker.ErrNotSent)
	for _, b := range batches {
		if notSent && !b.unclear {
			t.requeue(b, false)
		} else {
			b.unclear = b.unclear || !notSent
			t.again(b, err)
		}
	}
	t.rest(l)
}

// decide acts on a partition's refusal.
func (t *topic) decide(b *batch, err error) {
	t.cause = fmt.Errorf("produce to topic %q, partition %d: %w", t.name, b.part.number, err)
	v := judge(err)
	if v == unclear {
		b.unclear = true
	}
	if b.unclear {
		// An earlier try may have put the batch into the log, so that a refusal
		// of this one settles nothing.
		switch v {
		case unclear, later, gone:
			t.again(b, t.cause)
		default:
			if v == estranged {
				b.part.id.producer = noProducer
			}
			t.giveUp(b)
		}
		return
	}
	switch part, n := b.part, len(b.entries); {
	case v == later:
		t.hold(part)
		t.requeue(b, false)
	case v == estranged:
		t.p.logger.Warn("producer id unknown to the broker, taking a new one", topicField(t.name), zap.Int32("partition", part.number), zap.Error(err))
		part.id.producer = noProducer
		t.hold(part)
		t.requeue(b, false)
	case v == gone:
		t.hold(part)
		t.requeue(b, false)
		t.ask()
	case v == oversized && n > 1:
		t.limit = min(t.limit, len(b.bytes)/2)
		t.requeue(b, false)
	case v == oversized:
		t.end(b, fmt.Errorf("topic %q: %w: %w", t.name, ErrTooLarge, err))
	case v == invalid && n > 1:
		part.cut, part.suspect = (n+1)/2, n
		t.requeue(b, true)
	default:
		part.cut, part.suspect = 0, 0
		t.end(b, fmt.Errorf("topic %q: %w: %w", t.name, ErrRefused, err))
	}
}

// again has an unclear batch sent again after a pause, the same bytes to the
// same partition, unless the time of its last record is over.
func (t *topic) again(b *batch, cause error) {
	b.tries++
	b.idle = true
	if t.p.ctx.Err() != nil || !time.Now().Before(b.last) {
		t.giveUp(b)
		return
	}
	if c := t.p.logger.Check(zap.DebugLevel, "batch unanswered, trying again"); c != nil {
		c.Write(topicField(t.name), zap.Int32("partition", b.part.number), zap.Int("tries", b.tries), zap.Error(cause))
	}
	t.armBy(b.last)
	t.p.work.Go(func() { t.retry(b) })
}

// retry waits and looks the leader up anew; then the batch is due. It stays
// until then, so that Close can wait for it.
func (t *topic) retry(b *batch) {
	tries := b.tries
	for {
		whole := t.p.pause(pauseAfter(tries))
		t.mu.Lock()
		if b.part.batch != b {
			t.mu.Unlock()
			return // given up meanwhile
		}
		if !whole {
			t.giveUp(b)
			t.settled()
			t.mu.Unlock()
			return
		}
		asked := t.ask()
		t.mu.Unlock()
		<-asked
		t.mu.Lock()
		if b.part.batch != b {
			t.mu.Unlock()
			return
		}
		if b.part.leader.broker != leaderless {
			b.due = true
			t.wake(b.part.leader)
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		tries++
	}
}

// giveUp ends a batch whose fate is unknown. The partition's next batch
// belongs to the next epoch, so that this one, should it still be on its way,
// is refused once that one is in the log; and a later batch can only follow
// when that one is answered.
func (t *topic) giveUp(b *batch) {
	part := b.part
	if part.id.producer != noProducer {
		part.id.raise()
	}
	t.p.logger.Warn("batch given up, its records may be on the topic", topicField(t.name), zap.Int32("partition", part.number),
		zap.Int("records", len(b.entries)), zap.Int("tries", b.tries), zap.Error(t.cause))
	t.end(b, t.because(ErrUnclear))
	if part.ready() {
		t.wake(part.leader)
	}
	if !t.shared.empty() {
		t.wakeAny()
	}
}

// hold keeps new batches from a partition for a while.
func (t *topic) hold(part *partition) {
	part.strikes++
	part.held = true
	delay := pauseAfter(part.strikes)
	t.p.work.Go(func() {
		t.p.pause(delay)
		t.mu.Lock()
		defer t.mu.Unlock()
		part.held = false
		t.wakeAll()
	})
}

// rest gives a leader that could not be reached, or did not answer, a pause,
// and looks up whether it still leads.
func (t *topic) rest(l *leader) {
	if l.paused {
		return
	}
	l.failures++
	l.failed = time.Now()
	l.paused = true
	delay := pauseAfter(l.failures)
	t.ask()
	t.p.work.Go(func() {
		t.p.pause(delay)
		t.mu.Lock()
		defer t.mu.Unlock()
		l.paused = false
		t.wakeAll()
	})
}
