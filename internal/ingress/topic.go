package ingress

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// maxBatch bounds a batch, in bytes, below the 1,048,588 that brokers take
	// by default.
	maxBatch = 900 << 10
	// maxCall bounds the batches of one call together, in bytes, well below
	// the 100 MiB that brokers read at most (socket.request.max.bytes).
	maxCall = 32 << 20
	// refreshEvery is how old the knowledge of leaders and partitions may get
	// while all goes well.
	refreshEvery = 30 * time.Second
	// distrust is how long a leader that failed gets no shared records while
	// another one works.
	distrust = 5 * time.Second
	// leaderless is the broker that metadata names where a partition has no leader.
	leaderless = -1
)

// topic is what the producer knows of a topic and holds for it.
type topic struct {
	p    *Producer
	name string

	mu      sync.Mutex
	closed  bool
	records int // waiting or in flight
	bytes   int // of these

	known   bool // whether meta is the topic as it was at asked
	meta    broker.Topic
	asked   time.Time
	asking  chan struct{} // closed at the end of the look-up under way; nil: there is none
	pending *broker.Topic // another incarnation or partition count, to be taken over when busy is 0
	cause   error         // the last thing that went wrong, for the error texts

	unplaced queue // records that came before the topic, or the partition that they name, was known
	shared   queue // records that may go anywhere
	parts    []*partition
	leaders  []*leader
	turn     int // the partition whose turn it is to take shared records
	busy     int // partitions with a batch
	limit    int // bytes of a batch; smaller than maxBatch after a refusal

	beside  *time.Timer // for calls that may go out beside slow ones
	waking  bool        // whether it is set
	alarm   *time.Timer
	alarmed time.Time // when the alarm rings; zero: it is off
}

// partition is one partition of a topic.
type partition struct {
	number  int32
	leader  *leader
	at      int // where it is in leader.parts
	waiting queue
	batch   *batch // the one in flight or to be sent again
	held    bool   // no new batch until a pause is over
	strikes int    // pauses in a row
	cut     int    // while suspects are left: records a batch, to find an invalid one
	suspect int

	id identity // whoever holds the batch reads it without the mutex; it changes only under it
}

// leader is a broker, as the leader of some partitions of the topic.
type leader struct {
	broker   int32
	parts    []*partition
	turn     int     // the partition whose turn it is to take shared records
	busy     int     // of its partitions, those with a batch
	calls    []*call // one for each sender that runs
	paused   bool    // no call until a pause is over
	failures int     // calls in a row that failed as a whole
	failed   time.Time
}

func newTopic(p *Producer, name string) *topic {
	return &topic{p: p, name: name, limit: maxBatch}
}

// put queues a record and sees to it that someone sends it.
func (t *topic) put(e *entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return t.errClosed()
	}
	if t.records >= t.p.config.MaxQueue || t.bytes+e.size > t.p.config.MaxQueueBytes {
		return t.because(fmt.Errorf("%w: %d records with %d bytes wait for the topic", ErrFull, t.records, t.bytes))
	}
	t.records++
	t.bytes += e.size
	t.armBy(e.deadline)
	t.place(e)
	return nil
}

// place puts an entry at the end of its queue.
func (t *topic) place(e *entry) {
	switch {
	case !t.known:
		t.unplaced.push(e)
		t.ask()
	case !e.placed:
		t.shared.push(e)
		t.wakeAny()
	default:
		number, ok := e.partition(len(t.parts))
		if !ok {
			t.unplaced.push(e) // the topic may have grown meanwhile
			t.ask()
			return
		}
		part := t.parts[number]
		part.waiting.push(e)
		if part.batch == nil && !part.held {
			t.wake(part.leader)
		}
	}
}

// settle is place for an entry that has waited for a look-up, which has just
// told what partitions there are.
func (t *topic) settle(e *entry) {
	if number, ok := e.partition(len(t.parts)); !ok {
		t.refuse(e, fmt.Errorf("topic %q: %w: the record names partition %d of %d: %w", t.name, ErrRefused, number, len(t.parts), kafka.UnknownTopicOrPartition))
		return
	}
	t.place(e)
}

// withdraw takes an entry back if it still waits.
func (t *topic) withdraw(e *entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.in == nil {
		return false
	}
	e.in.remove(e)
	t.forget(e)
	return true
}

// forget takes an entry off the queue's bounds.
func (t *topic) forget(e *entry) {
	t.records--
	t.bytes -= e.size
}

// refuse ends an entry that waited.
func (t *topic) refuse(e *entry, err error) {
	t.forget(e)
	e.done <- outcome{err: err}
}

// because is an error with what is known of why.
func (t *topic) because(err error) error {
	if t.cause == nil {
		return fmt.Errorf("topic %q: %w", t.name, err)
	}
	return fmt.Errorf("topic %q: %w: %w", t.name, err, t.cause)
}

func (t *topic) errClosed() error { return t.because(ErrClosed) }

// wake starts a sender for a leader that may take one.
func (t *topic) wake(l *leader) {
	if l.broker == leaderless || l.paused || !t.mayCall(l, nil) {
		return
	}
	c := &call{began: time.Now()}
	l.calls = append(l.calls, c)
	t.p.work.Go(func() { t.send(l, c) })
}

// wakeAny starts a sender for shared records, at the leader of the next free
// partition. The turn goes by partitions, not by leaders, of which one may
// have many and another few.
func (t *topic) wakeAny() {
	if !slices.ContainsFunc(t.leaders, t.canShare) {
		return // as nearly always under load, when senders run
	}
	for i := range t.parts {
		at := (t.turn + i) % len(t.parts)
		if part := t.parts[at]; part.batch == nil && !part.held && t.canShare(part.leader) {
			t.turn = at + 1
			part.leader.turn = part.at
			t.wake(part.leader)
			return
		}
	}
}

// canShare tells whether another sender may take shared records to a leader.
func (t *topic) canShare(l *leader) bool {
	return l.broker != leaderless && !l.paused && l.busy < len(l.parts) && t.trusts(l) && t.mayCall(l, nil)
}

// trusts tells whether shared records may go to a leader: for a while not to
// one whose last call failed, when there is another one, where they have to
// wait less.
func (t *topic) trusts(l *leader) bool {
	if l.failures == 0 || time.Since(l.failed) > distrust {
		return true
	}
	for _, other := range t.leaders {
		if other.broker != leaderless && other.failures == 0 && len(other.parts) > 0 {
			return false
		}
	}
	return true
}

// wakeAll starts senders after a change that may have set anything free.
// Those that find nothing end at once.
func (t *topic) wakeAll() {
	for _, l := range t.leaders {
		for _, part := range l.parts {
			if part.ready() {
				t.wake(l)
				break
			}
		}
	}
	if !t.shared.empty() {
		t.wakeAny()
	}
}

// ready tells whether a sender would find something of this partition's own.
func (p *partition) ready() bool {
	if p.batch != nil {
		return p.batch.due
	}
	return !p.held && !p.waiting.empty()
}

// each hands over all that waits, in the order of each key, and leaves the
// queues empty.
func (t *topic) each(to func(*entry)) {
	for _, part := range t.parts {
		part.waiting.drain(to)
	}
	t.shared.drain(to)
	t.unplaced.drain(to)
}

// apply takes over what a broker says of the topic.
func (t *topic) apply(meta broker.Topic) {
	t.asked = time.Now()
	if len(meta.Leaders) == 0 {
		t.cause = errors.New("the broker names no partitions for it")
		return
	}
	same := meta.ID == t.meta.ID && len(meta.Leaders) == len(t.parts)
	if !same && t.busy > 0 {
		// Batches are in flight for the partitions as they were. Records of the
		// same keys must not go elsewhere before these are answered.
		t.pending = &meta
		switch {
		case meta.ID != t.meta.ID:
			t.abandon()
		case len(meta.Leaders) > len(t.parts):
			// Only more partitions: those that there were may have new leaders,
			// and a batch that waits for its answer must not go to a dead one.
			t.meta.Leaders = meta.Leaders[:len(t.parts)]
			t.lead()
			t.wakeAll()
		}
		if t.busy > 0 {
			return
		}
	}
	t.pending = nil
	if !same || !t.known {
		t.rebuild(meta)
		return
	}
	t.meta = meta
	t.limit = min(2*t.limit, maxBatch) // the topic's own limit may have been raised
	t.lead()
	t.unplaced.drain(t.settle)
	t.wakeAll()
}

// abandon gives up what waits to be sent again to a topic that is not there any
// more. No try could settle it: whether it was in that one, nobody can tell,
// and a broker that goes by names would put it into the new one.
func (t *topic) abandon() {
	t.cause = errors.New("the topic was deleted and made again while the answer was outstanding")
	for _, part := range t.parts {
		if b := part.batch; b != nil && b.idle && b.unclear {
			t.giveUp(b)
		}
	}
}

// rebuild makes the partitions anew. Another incarnation begins with new
// producer ids, so that what is late of the old one cannot be taken for its own.
func (t *topic) rebuild(meta broker.Topic) {
	var waiting queue
	t.each(waiting.push) // first, since the old partitions hold some of it
	if meta.ID != t.meta.ID && len(t.parts) > 0 {
		t.p.logger.Warn("topic recreated, producing to the new one", topicField(t.name))
		t.parts, t.limit = nil, maxBatch
	}
	t.meta, t.known = meta, true
	for n := len(t.parts); n < len(meta.Leaders); n++ {
		t.parts = append(t.parts, &partition{number: int32(n), id: identity{producer: noProducer}}) //nolint:gosec // Kafka counts them in an int32
	}
	t.parts = t.parts[:len(meta.Leaders)]
	t.lead()
	waiting.drain(t.settle)
}

// lead gives every partition its leader. Leaders that stay keep their senders;
// one that is no longer named loses its partitions, and its senders end.
func (t *topic) lead() {
	for _, l := range t.leaders {
		l.parts, l.busy = nil, 0
	}
	known := t.leaders
	t.leaders = nil
	find := func(among []*leader, id int32) *leader {
		for _, l := range among {
			if l.broker == id {
				return l
			}
		}
		return nil
	}
	lost := false
	for n, part := range t.parts {
		id := max(t.meta.Leaders[n], leaderless)
		l := find(t.leaders, id)
		if l == nil {
			if l = find(known, id); l == nil {
				l = &leader{broker: id}
			}
			t.leaders = append(t.leaders, l)
		}
		part.leader, part.at = l, len(l.parts)
		l.parts = append(l.parts, part)
		if part.batch != nil {
			l.busy++
		}
		lost = lost || id == leaderless
	}
	if lost {
		t.askLater()
	}
}

// close refuses what waits. What is in flight goes on.
func (t *topic) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	err := t.errClosed()
	t.each(func(e *entry) { t.refuse(e, err) })
}
