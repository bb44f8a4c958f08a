package embedded

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// oldest is the first segments of a partition that may go, the next one with
// the time of its first records.
type oldest struct {
	at       tp
	segments []segment // the last of them stays
	time     int64     // in milliseconds, as the record has it
	long     bool      // its topic keeps records for longer than others
}

// shrink deletes segments until the data fits, or only the newest of each
// partition are left. The oldest goes first, whichever partition it is in, and
// records only go with their segment: in one that stays they would free nothing.
//
// Topics that keep their records for longer than others, such as those of dead
// letters, are apart: their records would always be the oldest, and gone at the
// first full hour; but without a bound they would push out requests that are not
// done yet. So what they hold over a quarter of the bound goes first, then the
// oldest of the other topics, and then what is left of them.
//
// Which is the oldest is told by the records. The time of a file is another one
// once its directory was copied, and then all would seem to be new. And it is
// told segment by segment, not by a time before which everything goes: a
// producer may write any time, and a partition that has one record of the
// future in it would be kept until the last, and then lost to the last.
func (j *janitor) shrink(ctx context.Context, held space) error {
	l, err := j.survey(ctx)
	if err != nil {
		return err
	}
	var candidates []*oldest
	long := -j.config.MaxBytes / longShare // what long-lived topics hold over their share
	for at, segments := range held.partitions {
		o := &oldest{at: at, segments: segments, long: l.keeping[at.topic].long}
		if o.long {
			for _, s := range segments {
				long += s.size
			}
		}
		if _, known := l.start(at); !known || len(segments) < 2 {
			continue
		}
		if err := j.date(ctx, l, o); err != nil {
			return err
		}
		candidates = append(candidates, o)
	}
	cuts := make(kadm.Offsets)
	for size := held.size; size > j.config.MaxBytes && len(candidates) > 0; {
		next := first(candidates, long > 0)
		o := candidates[next]
		size -= o.segments[0].size
		if o.long {
			long -= o.segments[0].size
		}
		o.segments = o.segments[1:]
		l.cut(cuts, o.at, o.segments[0].first)
		if len(o.segments) < 2 {
			candidates[next] = candidates[len(candidates)-1]
			candidates = candidates[:len(candidates)-1]
			continue
		}
		if err := j.date(ctx, l, o); err != nil {
			return err
		}
	}
	return j.delete(ctx, cuts)
}

// first tells which goes next: the oldest of the long-lived ones or of the
// others, and if there are none of these, of all.
func first(candidates []*oldest, long bool) (next int) {
	for i, o := range candidates {
		n := candidates[next]
		if o.long == long && n.long != long || o.long == n.long && o.time < n.time {
			next = i
		}
	}
	return next
}

// date reads the time of a partition's oldest segment. One that cannot be read
// goes last: unknown is not old.
func (j *janitor) date(ctx context.Context, l logs, o *oldest) error {
	start, _ := l.start(o.at)
	r := kmsg.NewPtrFetchRequest()
	r.MaxBytes, r.MaxWaitMillis, r.ReplicaID, r.SessionEpoch = 1, int32(time.Second/time.Millisecond), -1, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = o.at.topic, l.topics[o.at.topic].ID
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition, partition.PartitionMaxBytes = o.at.partition, 1 // and yet one batch comes whole
	partition.FetchOffset = max(o.segments[0].first, start)
	topic.Partitions = append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	answer, err := r.RequestWith(ctx, j.client.Broker(0))
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("read the oldest records of topic %q, partition %d: %w", o.at.topic, o.at.partition, err)
	}
	o.time = math.MaxInt64
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if len(p.RecordBatches) >= headerEnd {
				o.time = int64(binary.BigEndian.Uint64(p.RecordBatches[lastTimeAt:])) //nolint:gosec // as it was written
			}
		}
	}
	return nil
}
