package claims

import (
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// sweepDelay is how long an entry stays behind its end: the clocks of the log
// and of this gateway may differ by that much.
const sweepDelay = time.Minute

// adopt makes the topic the one that is read. Another incarnation begins anew.
func (b *Book) adopt(t broker.Topic) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.life.topic
	if len(b.life.partitions) > 0 && was.ID == t.ID && t.Partitions() >= was.Partitions() {
		b.life.grow(t)
		return
	}
	if len(b.life.partitions) > 0 {
		b.log.Warn("claims topic was made anew; what was claimed before is forgotten", zap.String("topic", t.Name))
	}
	close(b.life.over)
	b.table, b.life = newTable(b.config.Max), newLife(t)
}

// unlocated lists the partitions of which it is not known where they begin.
func (b *Book) unlocated() []int32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []int32
	for i, p := range b.life.partitions {
		if p.next == unknown {
			list = append(list, int32(i))
		}
	}
	return list
}

// start tells where partitions begin.
func (b *Book) start(at map[int32]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for p, offset := range at {
		b.life.partitions[p].next = offset
	}
}

// next gives the next offset to read of a partition.
func (b *Book) next(partition int32) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.life.partitions[partition].next
}

// read tells whether all that partitions held has been read.
func (b *Book) read(partitions []int32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range partitions {
		if !b.life.partitions[p].read {
			return false
		}
	}
	return true
}

// skip passes over what retention has deleted.
func (b *Book) skip(partition int32, to int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.life.partitions[partition].next = to
}

// again begins to read a partition anew.
func (b *Book) again(partition int32, from int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.table.drop(partition)
	p := b.life.partitions[partition]
	p.next, p.target, p.read = from, unknown, false
}

// take applies what was fetched by a request that began at the given time.
func (b *Book) take(got *broker.Fetched, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.life.partitions[got.Partition]
	for _, r := range got.Records {
		parsed, err := parse(r.Value)
		if err != nil {
			b.log.Debug("record on the claims topic passed over", zap.Int32("partition", got.Partition), zap.Int64("offset", r.Offset), zap.Error(err))
			continue
		}
		b.table.apply(got.Partition, r.Time.UnixMilli(), r.Key, parsed)
	}
	moved := got.Next > p.next
	if moved {
		p.next = got.Next
	}
	if got.Err != nil {
		return
	}
	if p.target == unknown {
		p.target = got.HighWatermark
	}
	if !p.read && p.next >= p.target {
		p.read, moved = true, true
	}
	if p.next >= got.HighWatermark {
		// All that the log had when the question was asked is applied.
		b.table.sweep(got.Partition, asked.Add(-sweepDelay).UnixMilli())
	}
	if moved {
		close(p.news)
		p.news = make(chan struct{})
	}
}
