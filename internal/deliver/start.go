package deliver

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// start is where the group has committed that a partition goes on.
type start struct {
	// offset is -1 where nothing was committed.
	offset   int64
	metadata string
	// ready says that the queue has the partition, or never will because its
	// progress is unreadable.
	ready, unreadable bool
}

// starts asks the coordinator where the generation's partitions go on. It
// repeats that until ctx ends.
func (g *generation) starts(ctx context.Context) (map[int32]*start, error) {
	numbers := make([]int, 0, len(g.kg.Assignments[g.d.config.Topic]))
	for _, a := range g.kg.Assignments[g.d.config.Topic] {
		numbers = append(numbers, a.ID)
	}
	var pause backoff.Backoff
	for {
		starts, err := g.committed(ctx, numbers)
		if err == nil {
			return starts, nil
		}
		if pause.Failures() > 0 {
			g.d.log.Debug("committed progress not known", g.fields(zap.Error(err))...)
		}
		if !pause.Sleep(ctx) {
			return nil, context.Cause(ctx)
		}
	}
}

func (g *generation) committed(ctx context.Context, numbers []int) (map[int32]*start, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	answer, err := g.d.config.Broker.API().OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: g.kg.GroupID, Topics: map[string][]int{g.d.config.Topic: numbers},
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return nil, err
	}
	starts := make(map[int32]*start, len(numbers))
	for _, p := range answer.Topics[g.d.config.Topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		starts[int32(p.Partition)] = &start{offset: p.CommittedOffset, metadata: p.Metadata}
	}
	if len(starts) < len(numbers) {
		return nil, errors.New("the coordinator does not know all partitions")
	}
	return starts, nil
}

// ready gives a partition to the queue: its progress, and the streams that are
// done. Without them a record that is there twice would be tried twice. It
// gives false when that could not be found out now.
func (g *generation) ready(ctx context.Context, leader, number int32, s *start) bool {
	if s.ready {
		return true
	}
	log := g.d.log.With(g.fields(zap.Int32("partition", number))...)
	p, err := parseProgress(s.offset, s.metadata)
	if s.offset < 0 {
		p, err = progress{}, nil
	}
	if err != nil {
		// The partition stands still until someone has looked: to go on from
		// the offset alone would do again what is done ahead of it.
		log.Error("partition is not delivered", zap.Error(err))
		s.ready, s.unreadable = true, true
		return true
	}
	first, last, err := g.d.bounds(ctx, g.topic, number)
	if err != nil {
		if ctx.Err() == nil {
			log.Debug("ends of a log not known", zap.Error(err))
		}
		return false
	}
	life := g.topic.ID.Incarnation()
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
	seen := g.d.window(number, life)
	if err := g.recall(ctx, leader, number, seen, first, p.base); err != nil {
		if ctx.Err() == nil {
			log.Debug("streams that are done not known", zap.Error(err))
		}
		return false
	}
	// An offset that was wrong is put right at once. Left until something is done,
	// it would be right again by the time that the log has grown up to it.
	g.queue.assign(number, p, seen, s.offset >= 0 && p.base != s.offset)
	s.ready = true
	return true
}

// maxRecalled bounds what is read of a partition to learn what was done lately.
const maxRecalled = 16 << 20

// recall completes the window of a partition with what others did: the streams
// of the last records before base. The last come first, and it stops at what
// the window has, at maxSeen records, and at maxRecalled bytes.
func (g *generation) recall(ctx context.Context, leader, number int32, w *window, first, base int64) error {
	const step = 4096 // records at a time
	oldest := max(first, base-maxSeen)
	if w.to > oldest && w.to <= base {
		oldest = w.to
	}
	var found [][]string
	bytes := 0
	for to := base; to > oldest && bytes < maxRecalled; {
		from := max(oldest, to-step)
		ids, size, err := g.streamsIn(ctx, leader, number, from, to)
		if err != nil {
			return err
		}
		found = append(found, ids)
		bytes += size
		to = from
	}
	for i := len(found) - 1; i >= 0; i-- {
		for _, id := range found[i] {
			w.add(id)
		}
	}
	w.to = base
	return nil
}

// streamsIn reads the stream ids of the records between two offsets.
func (g *generation) streamsIn(ctx context.Context, leader, number int32, from, to int64) (ids []string, bytes int, err error) {
	for from < to {
		got, err := g.d.config.Broker.Fetch(ctx, broker.FetchRequest{
			Leader: leader, MaxBytes: fetchBytes,
			From: []broker.FetchFrom{{Topic: g.d.config.Topic, ID: g.topic.ID, Partition: number, Offset: from}},
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
			bytes += len(r.Value)
			if id, ok := record.CorrelationID(r.Headers); ok {
				ids = append(ids, id)
			}
		}
		if got[0].Next <= from {
			break // the records up to there are not committed, or gone
		}
		from = got[0].Next
	}
	return ids, bytes, nil
}
