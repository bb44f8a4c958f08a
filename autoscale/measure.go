package autoscale

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// A Meter asks for a group's commits at most every freshFor, and works out
// rates over the samples of the last rateOver.
const (
	freshFor = time.Second
	rateOver = time.Minute
)

// Meter tells how far consumer groups have come. It asks the broker only while
// somebody asks it, and remembers one minute of each partition and group.
type Meter struct {
	api       *kafka.Client
	doneBelow DoneBelow

	mu     sync.Mutex
	places map[place]*progress
}

// place is where a group commits.
type place struct {
	topic, group string
	partition    int32
}

// progress is what one group was seen to have committed on one partition.
type progress struct {
	mu      sync.Mutex
	samples []sample // oldest first, never empty once asked with success
}

// sample is what a group had committed at some time.
type sample struct {
	at        time.Time
	committed int64
	metadata  string // of the newest sample only
	done      int64  // the records that were done, those after committed included
}

// DoneBelow returns how many records at and after a commit's offset, and below
// another offset, the commit's metadata says are done.
type DoneBelow func(committed int64, metadata string, below int64) int64

// NewMeter makes a Meter that has seen nothing yet. Without doneBelow, what is
// not committed is not done.
func NewMeter(api *kafka.Client, doneBelow DoneBelow) *Meter {
	if doneBelow == nil {
		doneBelow = func(int64, string, int64) int64 { return 0 }
	}
	return &Meter{api: api, doneBelow: doneBelow, places: make(map[place]*progress)}
}

// Position is where a record stands in front of its consumer group.
type Position struct {
	// Ahead counts the records of its partition that come before it and are
	// not done; -1 when the record itself is done.
	Ahead int64
	// ETA is how long they take at the pace of the last minute; -1 where there
	// is no pace to tell from.
	ETA time.Duration
}

// Position tells where a record stands. The second result is false when the
// group has committed nothing on the record's partition: then it may not be the
// group that works on it.
func (m *Meter) Position(ctx context.Context, topic, group string, partition int32, offset int64) (Position, bool, error) {
	key := place{topic, group, partition}
	m.mu.Lock()
	p := m.places[key]
	if p == nil {
		p = new(progress)
		m.places[key] = p
	}
	m.mu.Unlock()

	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if n := len(p.samples); n == 0 || now.Sub(p.samples[n-1].at) >= freshFor {
		s, err := m.committed(ctx, key)
		if err != nil {
			return Position{}, false, err
		}
		s.at, s.done = now, s.committed
		if s.committed != Unknown {
			s.done += m.doneBelow(s.committed, s.metadata, math.MaxInt64)
		}
		p.add(s)
	}
	last := p.samples[len(p.samples)-1]
	if last.committed == Unknown {
		return Position{}, false, nil
	}
	before := m.doneBelow(last.committed, last.metadata, offset)
	if last.committed > offset || m.doneBelow(last.committed, last.metadata, offset+1) > before {
		return Position{Ahead: -1, ETA: 0}, true, nil
	}
	at := Position{Ahead: offset - last.committed - before, ETA: -1}
	if pace := p.pace(); pace > 0 {
		at.ETA = time.Duration(float64(at.Ahead+1) / pace * float64(time.Second))
	}
	return at, true, nil
}

// add keeps a sample and drops those that are too old to tell a pace from.
func (p *progress) add(s sample) {
	drop := 0
	for drop < len(p.samples)-1 && s.at.Sub(p.samples[drop].at) > rateOver {
		drop++
	}
	if n := len(p.samples); n > 0 {
		p.samples[n-1].metadata = ""
	}
	p.samples = append(p.samples[drop:], s)
}

// pace gives records done per second over the samples, 0 if unknown.
func (p *progress) pace() float64 {
	last := p.samples[len(p.samples)-1]
	for _, first := range p.samples {
		if elapsed := last.at.Sub(first.at).Seconds(); first.committed != Unknown && elapsed > 0 {
			return float64(last.done-first.done) / elapsed
		}
	}
	return 0
}

// committed asks the group's coordinator.
func (m *Meter) committed(ctx context.Context, at place) (sample, error) {
	nothing := sample{committed: Unknown}
	answer, err := m.api.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: at.group, Topics: map[string][]int{at.topic: {int(at.partition)}},
	})
	if err == nil {
		err = answer.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nothing, nil // nobody has consumed in this group yet
	}
	if err != nil {
		return nothing, fmt.Errorf("read the commits of group %q: %w", at.group, err)
	}
	for _, p := range answer.Topics[at.topic] {
		if p.Error == nil && p.Partition == int(at.partition) && p.CommittedOffset >= 0 {
			return sample{committed: p.CommittedOffset, metadata: p.Metadata}, nil
		}
	}
	return nothing, nil
}
