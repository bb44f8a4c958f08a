package hub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// floorInterval is how often the high watermarks of all reply partitions
	// are asked for, and the topic is looked at for growth and recreation.
	floorInterval = 10 * time.Second

	// floorSettle is waited between the news that the topic was recreated and
	// the question where its partitions stand. A leader that hears of it later
	// than the broker that told would answer with the old life's offsets, which
	// in the new life are a guess.
	// Leaders are vouched for besides, which a broker that fetches by the topic's
	// name (Kafka before 3.1) cannot be.
	floorSettle = time.Second

	// roundTimeout bounds one round, in which some request may go unanswered.
	roundTimeout = 15 * time.Second
)

// unknownFloor stands for a partition whose high watermark nobody has told yet.
const unknownFloor int64 = -1

// floors keeps, for every partition of the reply topic, a high watermark that
// was seen at some earlier time. A token names it as the offset from which the
// stream's replies are looked for: a reply cannot be older than a watermark
// seen before its request was produced. An old floor costs a longer read, a
// guessed one could lose the reply, so what is not known stays unknown.
//
// The newest observation counts, also when it is lower: after an unclean leader
// election the log is shorter than it was. A new incarnation of the topic drops
// all that was known, and so does the word of a broker that there is no such
// topic: a reply could be written nowhere, so no token names a place for it.
//
// Any goroutine may read and observe; run is the only one that changes which
// incarnation and how many partitions there are.
type floors struct {
	config floorsConfig

	// set is replaced when incarnation or partition count change; within one
	// set the offsets are written in place, so that observe, which runs for
	// every answer to a fetch, takes no lock and makes no garbage.
	set  atomic.Pointer[floorSet]
	look chan struct{} // asks run for a round before its time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when something became known
	failed  error         // of the last round, nil when it went well
}

type floorsConfig struct {
	broker *broker.Client
	// spec names the reply topic, and describes it for when it has to be made.
	spec broker.TopicSpec
	// create says whether a missing topic is made. Without it, floors waits for
	// somebody else to do so.
	create bool
	log    *zap.Logger
}

// floorSet is what is known of one incarnation. While the topic is gone there
// are no partitions, and the incarnation is the one that it had.
type floorSet struct {
	incarnation uint32
	offsets     []atomic.Int64 // by partition
	// settled is set once every leader can have heard of this incarnation.
	settled atomic.Bool
}

// gone tells whether the topic was there and is not any more.
func (s *floorSet) gone() bool { return len(s.offsets) == 0 }

func newFloorSet(t broker.Topic) *floorSet {
	s := &floorSet{incarnation: t.ID.Incarnation(), offsets: make([]atomic.Int64, t.Partitions())}
	for p := range s.offsets {
		s.offsets[p].Store(unknownFloor)
	}
	return s
}

// floor gives a partition's floor, and false where it is unknown.
func (s *floorSet) floor(partition int32) (int64, bool) {
	if partition < 0 || int(partition) >= len(s.offsets) {
		return 0, false
	}
	at := s.offsets[partition].Load()
	return at, at != unknownFloor
}

func newFloors(c floorsConfig) *floors {
	return &floors{config: c, look: make(chan struct{}, 1), changed: make(chan struct{})}
}

// observe takes note of a high watermark that a fetch of the topic's given
// incarnation showed. One from another incarnation, or of a partition beyond
// those known, is no floor yet: it makes run look at the topic at once. Nor is
// any before the incarnation has settled.
func (f *floors) observe(incarnation uint32, partition int32, highWatermark int64) {
	if highWatermark < 0 || partition < 0 {
		return // the answer was an error
	}
	s := f.set.Load()
	if s == nil || s.incarnation != incarnation || int(partition) >= len(s.offsets) {
		f.lookNow()
		return
	}
	if !s.settled.Load() {
		return
	}
	if s.offsets[partition].Swap(highWatermark) == unknownFloor {
		f.announce()
	}
}

// current gives what is known, nil before the topic was found.
func (f *floors) current() *floorSet { return f.set.Load() }

// lookNow makes run ask the brokers without waiting for the interval to pass.
func (f *floors) lookNow() {
	select {
	case f.look <- struct{}{}:
	default: // a round is due already
	}
}

// next gives a channel that is closed when more is known than now. Take it
// before looking, or what happens in between is missed.
func (f *floors) next() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *floors) announce() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.changed)
	f.changed = make(chan struct{})
}

// err gives the reason why the last round failed, nil when it did not.
func (f *floors) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// await returns as soon as the reply topic is there, or with the context's error.
func (f *floors) await(ctx context.Context) error {
	for {
		news := f.next()
		if s := f.current(); s != nil && !s.gone() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run keeps the floors until the context ends. While a broker is down it tries
// again, more and more rarely, and what is known stays as it is.
func (f *floors) run(ctx context.Context) {
	var failures backoff.Backoff
	for {
		err := f.round(ctx)
		if ctx.Err() != nil {
			return
		}
		f.report(err)
		if err != nil {
			failures.Sleep(ctx)
			continue
		}
		failures.Reset()
		// However often a tail asks for a look, there is a pause between two.
		pause(ctx, backoff.Least, nil)
		pause(ctx, floorInterval, f.look)
	}
}

// pause lets time pass, less of it when the context ends or wake has something.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// report remembers how the last round went and logs the change, not each round
// of an outage.
func (f *floors) report(err error) {
	f.mu.Lock()
	before := f.failed
	f.failed = err
	f.mu.Unlock()
	switch {
	case err != nil && before == nil:
		f.config.log.Warn("reply topic out of reach", zap.String("topic", f.config.spec.Name), zap.Error(err))
	case err != nil:
		f.config.log.Debug("reply topic still out of reach", zap.String("topic", f.config.spec.Name), zap.Error(err))
	case before != nil:
		f.config.log.Info("reply topic within reach again", zap.String("topic", f.config.spec.Name))
	}
}

// round looks at the topic once and asks where its partitions stand.
func (f *floors) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	t, err := f.find(ctx)
	if err != nil {
		return err
	}
	s, recreated := f.adopt(t)
	if recreated {
		f.config.log.Warn("reply topic was made anew", zap.String("topic", t.Name))
		pause(ctx, floorSettle, nil) // requests wait meanwhile
		s.settled.Store(true)
	}
	partitions := make([]int32, t.Partitions())
	for p := range partitions {
		partitions[p] = int32(p)
	}
	known, strange := vouched(ctx, f.config.broker, t, partitions)
	at, err := f.config.broker.Offsets(ctx, t, known, broker.HighWatermark)
	err = errors.Join(strange, err)
	for p, offset := range at {
		f.observe(s.incarnation, p, offset)
	}
	if missing := len(partitions) - len(at); err == nil && missing > 0 {
		err = fmt.Errorf("ask where topic %q stands: %d of its %d partitions have no leader", t.Name, missing, len(partitions))
	}
	return err
}

// adopt makes t what the floors are about, and tells whether it is another
// topic than before. Floors outlive growth, not recreation. A broker without
// topic ids shows the latter only when the topic was gone in between, or when
// there are fewer partitions than before.
func (f *floors) adopt(t broker.Topic) (s *floorSet, recreated bool) {
	old := f.current()
	if old != nil && old.incarnation == t.ID.Incarnation() && len(old.offsets) == int(t.Partitions()) {
		return old, false
	}
	s = newFloorSet(t)
	recreated = old != nil && (old.incarnation != s.incarnation || len(old.offsets) > len(s.offsets) ||
		old.gone() && t.ID == broker.TopicID{})
	s.settled.Store(!recreated)
	if old != nil && !recreated {
		for p := range old.offsets {
			// What a tail observes while this copies may be lost, which leaves
			// an older floor.
			s.offsets[p].Store(old.offsets[p].Load())
		}
	}
	f.set.Store(s)
	f.announce()
	return s, recreated
}

// find gives the topic, and makes it where that is allowed. What was known of
// one that is gone is dropped first: making it may take long, or be refused.
func (f *floors) find(ctx context.Context) (broker.Topic, error) {
	t, err := f.config.broker.Topic(ctx, f.config.spec.Name)
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		return t, err
	}
	f.drop()
	if f.config.create {
		return f.config.broker.Ensure(ctx, f.config.spec)
	}
	return t, fmt.Errorf("%w; create it, or let the gateway create topics", err)
}

// drop takes a broker's word that there is no such topic: what was known of it
// is good for no token, but for the incarnation, by which it is told from the
// one that comes next.
func (f *floors) drop() {
	if s := f.current(); s != nil && !s.gone() {
		f.set.Store(&floorSet{incarnation: s.incarnation})
	}
}
