package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// start is where the group has committed that a partition goes on.
type start struct {
	// tenure is the time in which this member has the partition.
	tenure uint64
	// known says that the coordinator has told.
	known bool
	// offset is -1 where nothing was committed.
	offset   int64
	metadata string
	// ready says that the queue has the partition, or never will because its
	// progress is unreadable.
	ready, unreadable bool
}

// committed asks the coordinator where partitions go on, and reports whether all
// of them are known.
func (r *reader) committed(ctx context.Context, numbers []int32, starts map[int32]*start) bool {
	unknown := slices.DeleteFunc(slices.Clone(numbers), func(number int32) bool { return starts[number].known })
	if len(unknown) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	answer, err := r.d.member.Committed(ctx, unknown)
	for number, c := range answer {
		if s := starts[number]; s != nil {
			s.known, s.offset, s.metadata = true, c.Offset, c.Metadata
		}
	}
	if err != nil && ctx.Err() == nil {
		r.d.log.Debug("committed progress not known", r.d.fields(zap.Error(err))...)
	}
	return !slices.ContainsFunc(unknown, func(number int32) bool { return !starts[number].known })
}

// start gives a partition to the queue: its progress, and the streams that are
// done. Without them a record that is there twice would be tried twice. It
// gives false when that could not be found out now.
func (r *reader) start(ctx context.Context, topic broker.Topic, leader, number int32, s *start) bool {
	if s.ready {
		return true
	}
	log := r.d.log.With(r.d.fields(zap.Int32("partition", number))...)
	p, err := parseProgress(s.offset, s.metadata)
	if s.offset < 0 {
		p, err = progress{}, nil
	}
	if r.d.queue.has(number) { // from before the membership was interrupted
		if err == nil && p.owner == r.d.queue.owner() {
			log.Info("membership was interrupted, and nobody else has had the partition")
			r.settled(number, s, func() { r.d.queue.resume(s.tenure, number) })
			return true
		}
		log.Warn("membership was interrupted, and another member has had the partition")
		r.d.queue.drop([]int32{number}, errLost)
	}
	if err != nil {
		// The partition stands still until someone has looked: to go on from
		// the offset alone would do again what is done ahead of it.
		log.Error("partition is not delivered", zap.Error(err))
		r.settled(number, s, func() { s.unreadable = true })
		return true
	}
	first, last, err := r.d.bounds(ctx, topic, number)
	if err != nil {
		if ctx.Err() == nil {
			log.Debug("ends of a log not known", zap.Error(err))
		}
		return false
	}
	life := topic.ID.Incarnation()
	switch {
	case s.offset < 0:
		p = progress{base: first}
	case p.incarnation != 0 && life != 0 && p.incarnation != life:
		log.Warn("topic was deleted and made again: it is delivered from its start", zap.Int64("log_start", first))
		p = progress{base: first}
	case p.base > last:
		log.Error(shortText, zap.Int64("committed", p.base), zap.Int64("log_end", last))
		p = progress{base: last}
	case p.base < first:
		log.Error(goneText, zap.Int64("committed", p.base), zap.Int64("log_start", first))
		p.finish(p.base, first)
	}
	p.incarnation = life
	changed := s.offset >= 0 && p.base != s.offset
	for offset, e := range p.tries {
		// Its owner died in the middle of a try, or was cut off and could not hand
		// it over.
		if e.running {
			p.note(offset, (*past).cutShort)
			changed = true
		}
	}
	seen := r.d.windows.window(number, life)
	if err := r.recall(ctx, topic, leader, number, seen, first, p.base); err != nil {
		if ctx.Err() == nil {
			log.Debug("streams that are done not known", zap.Error(err))
		}
		return false
	}
	// An offset that was wrong is put right at once. Left until something is done,
	// it would be right again by the time that the log has grown up to it.
	r.settled(number, s, func() { r.d.queue.assignIn(s.tenure, number, p, seen, changed) })
	r.d.handovers.settle(number)
	return true
}

// settled hands a partition to the queue, unless it was revoked meanwhile.
func (r *reader) settled(number int32, s *start, to func()) {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	s.ready = true
	if r.starts[number] == s {
		to()
		r.wake()
	}
}

// recalledEach bounds what is read of a partition to learn what was done lately, in
// bytes for each stream that may be remembered. Until it is read the partition
// stands still: 100 partitions that come together read no more than 10 do.
const recalledEach = 100

// firstRecalled is how many records are read first, to see how large they are.
const firstRecalled = 64

// recall completes the window of a partition with what others did: the streams
// of the last records before base. The last come first, and it stops at what
// the window has, or when it has read as much as the window's share is worth.
func (r *reader) recall(ctx context.Context, topic broker.Topic, leader, number int32, w *window, first, base int64) error {
	share := w.share()
	oldest := max(first, base-int64(share))
	if w.to > oldest && w.to <= base {
		oldest = w.to
	}
	var found [][]uint64
	step, left := int64(firstRecalled), int64(share)*recalledEach
	for to := base; to > oldest && left > 0; {
		from := max(oldest, to-step)
		hashes, bytes, err := r.streamsIn(ctx, topic, leader, number, from, to)
		if err != nil {
			return err
		}
		found = append(found, hashes)
		left -= bytes
		// As many as one fetch brings: it gives no fewer bytes when fewer are wanted.
		step = max((to-from)*min(fetchBytes*3/4, left)/max(bytes, 1), 1)
		to = from
	}
	for _, hashes := range slices.Backward(found) {
		for _, h := range hashes {
			w.addHash(h)
		}
	}
	w.to = base
	return nil
}

// streamsIn reads the streams of the records between two offsets, and gives the
// hashes of their ids.
func (r *reader) streamsIn(ctx context.Context, topic broker.Topic, leader, number int32, from, to int64) (hashes []uint64, bytes int64, err error) {
	for from < to {
		got, err := r.d.config.Broker.Fetch(ctx, broker.FetchRequest{
			Leader: leader, MaxBytes: fetchBytes,
			From: []broker.FetchFrom{{Topic: topic.Name, ID: topic.ID, Partition: number, Offset: from}},
		})
		if err != nil {
			return nil, 0, err
		}
		if len(got) == 0 {
			return nil, 0, fmt.Errorf("fetch of partition %d: no answer", number)
		}
		if err := got[0].Err; err != nil && !errors.Is(err, broker.ErrBatchTooLarge) {
			return nil, 0, err
		}
		for _, r := range got[0].Records {
			if r.Offset >= to {
				break
			}
			bytes += size(r)
			if id, ok := record.CorrelationID(r.Headers); ok {
				hashes = append(hashes, hash(id))
			}
		}
		if got[0].Next <= from {
			break // the records up to there are not committed, or gone
		}
		from = got[0].Next
	}
	return hashes, bytes, nil
}
