package hub

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// tailMaxWait is how long a broker holds a fetch while there is nothing new.
	tailMaxWait = time.Second
	// tailMaxBytes bounds one answer.
	tailMaxBytes = 8 << 20
	// tailCoalesce is how long a change of the set of partitions waits for
	// others, since each abandons the fetch under way and with it, for up to
	// tailMaxWait, a connection.
	tailCoalesce = 5 * time.Millisecond
	// tailRest is how long a partition is left alone after an error.
	tailRest = time.Second
)

// tail reads the partitions that one broker leads: all of them with one fetch
// that the broker holds until there is something new. Beside it a prober asks
// the broker for the ends of logs, so that nobody has to wait for the held fetch
// to learn what the log holds now.
type tail struct {
	hub    *Hub
	leader int32

	// partitions is guarded by the hub's lock.
	partitions map[*partition]struct{}

	changed chan struct{} // holds one wish to look at the partitions again
	probes  chan struct{} // holds one wish to ask for ends
	passes  chan struct{} // a place for each answer to a scan, see maxPasses

	mu        sync.Mutex // held alone
	abandon   context.CancelFunc
	scheduled bool
}

// assign makes t the tail that reads the partition; nil for none. Needs the hub's lock.
func (p *partition) assign(t *tail) {
	was := p.tail.Load()
	if was == t {
		return
	}
	if was != nil {
		delete(was.partitions, p)
	}
	p.tail.Store(t)
	p.abandonStep()
	if t != nil {
		t.partitions[p] = struct{}{}
		t.change()
		t.probe()
	}
}

// tail gives the tail of a broker. Needs the hub's lock.
func (h *Hub) tail(leader int32) *tail {
	t := h.tails[leader]
	if t == nil {
		t = &tail{
			hub: h, leader: leader,
			partitions: make(map[*partition]struct{}),
			changed:    make(chan struct{}, 1),
			probes:     make(chan struct{}, 1),
			passes:     make(chan struct{}, maxPasses),
		}
		h.tails[leader] = t
		h.spawn(t.run)
		h.spawn(t.runProbes)
	}
	return t
}

// change has the fetch under way given up for one of the partitions as they are
// now, after a moment in which more changes may come.
func (t *tail) change() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.scheduled {
		return
	}
	t.scheduled = true
	time.AfterFunc(tailCoalesce, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.scheduled = false
		if t.abandon != nil {
			t.abandon()
		}
		select {
		case t.changed <- struct{}{}:
		default:
		}
	})
}

// probe has the broker asked for the ends of the logs where someone wants to know.
func (t *tail) probe() {
	select {
	case t.probes <- struct{}{}:
	default:
	}
}

// following is a partition in a fetch, and from where.
type following struct {
	*partition
	from position
}

// run fetches until the hub closes.
func (t *tail) run(ctx context.Context) {
	var pause backoff.Backoff
	for round := 0; ctx.Err() == nil; round++ {
		select {
		case <-t.changed: // what follows sees the change
		default:
		}
		followed := t.follow(round)
		if len(followed) == 0 {
			select {
			case <-t.changed:
			case <-ctx.Done():
			}
			continue
		}
		tick := t.hub.tick()
		got, abandoned, err := t.fetch(ctx, followed)
		switch {
		case abandoned || ctx.Err() != nil:
		case err != nil:
			t.hub.log.Debug("fetch of replies failed", zap.Int32("broker", t.leader), zap.Error(err))
			for _, f := range followed {
				f.topic.outdated()
			}
			pause.Sleep(ctx)
		default:
			pause.Reset()
			for i := range got {
				t.process(followed, &got[i], tick)
			}
			t.hub.evict()
		}
	}
}

// follow lists what to fetch, in another order each round.
func (t *tail) follow(round int) []following {
	at := time.Now()
	t.hub.mu.Lock()
	followed := make([]following, 0, len(t.partitions))
	for p := range t.partitions {
		if from, ok := p.position(at); ok {
			followed = append(followed, following{p, from})
		}
	}
	t.hub.mu.Unlock()
	slices.SortFunc(followed, func(a, b following) int {
		return cmp.Or(cmp.Compare(a.topic.name, b.topic.name), cmp.Compare(a.index, b.index))
	})
	return rotate(followed, round)
}

// rotate has the sorted list begin elsewhere each round: a broker fills its answer
// in the order of the request, and a busy partition must not starve those after
// it. The partitions of a topic stay together, so that a request has each topic once.
func rotate(followed []following, round int) []following {
	if len(followed) == 0 {
		return nil
	}
	first := round % len(followed)
	from, to := first, first
	for from > 0 && followed[from-1].topic == followed[first].topic {
		from--
	}
	for to < len(followed) && followed[to].topic == followed[first].topic {
		to++
	}
	return slices.Concat(followed[first:to], followed[from:first], followed[to:], followed[:from])
}

// fetch asks the broker, and tells whether the question was abandoned because
// the partitions have changed.
func (t *tail) fetch(ctx context.Context, followed []following) (got []broker.Fetched, abandoned bool, err error) {
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.abandon = cancel
	if len(t.changed) > 0 { // since the partitions were listed
		cancel()
	}
	t.mu.Unlock()
	q := broker.FetchRequest{Leader: t.leader, MaxWait: tailMaxWait, MaxBytes: tailMaxBytes}
	for _, f := range followed {
		q.From = append(q.From, broker.FetchFrom{Topic: f.topic.name, ID: f.id, Partition: f.index, Offset: f.from.offset, After: f.from.after})
	}
	got, err = t.hub.broker.Fetch(asked, q)
	return got, err != nil && asked.Err() != nil, err
}

// process takes the answer for one partition.
func (t *tail) process(followed []following, got *broker.Fetched, tick uint64) {
	i := slices.IndexFunc(followed, func(f following) bool {
		return f.index == got.Partition && f.topic.name == got.Topic
	})
	if i < 0 {
		return
	}
	f := followed[i]
	err := f.failure(*got)
	var cut *broker.CutError
	switch {
	case err == nil:
		f.take(f.from, *got, tick)
		t.hub.observe(f.partition, got.HighWatermark)
		return
	case errors.As(err, &cut):
		t.hub.log.Warn("replies were lost by the brokers", zap.String("topic", f.topic.name), zap.Int32("partition", f.index), zap.Error(err))
		f.cutOff(f.from, cut.At)
		t.probe()
	case errors.Is(err, kafka.OffsetOutOfRange):
		f.lookAgain(f.from.life)
		t.rest(f.partition)
		t.probe()
	case moved(err):
		t.hub.displace(f.partition, t)
	default:
		// Anything else may pass, or be a batch that nobody can read. Skipping
		// it would lose replies without a word, so the partition stands and says why.
		t.hub.log.Error("partition of replies cannot be read", zap.String("topic", f.topic.name), zap.Int32("partition", f.index), zap.Int64("offset", f.from.offset), zap.Error(err))
		t.rest(f.partition)
	}
}

// rest keeps a partition that gave an error out of the fetches for a moment, so
// that an error that stays makes no loop of them.
func (t *tail) rest(p *partition) {
	p.pause(tailRest)
	time.AfterFunc(tailRest, t.change)
}

// displace takes a partition from a tail whose broker does not lead it any
// more, until the topic is described anew.
func (h *Hub) displace(p *partition, from *tail) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.tail.Load() == from {
		p.assign(nil)
	}
	p.topic.outdated()
}
