package embedded

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// tidyEvery is how often old records are looked for.
const tidyEvery = time.Minute

// janitor deletes old records by Kafka's own DeleteRecords: those that are older
// than the broker's retention, or than the topic's own (retention.ms), those of
// partitions larger than their topic says (retention.bytes), and then as many as
// it takes to be within MaxBytes (see shrink). It always leaves a
// partition its newest record: the end of a partition is not written anywhere
// else, and must survive a kill. The start is forgotten by a kill; deleted
// records that are still on disk come back until the janitor has run, which it
// does first thing.
type janitor struct {
	config  Config
	cluster *kfake.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

func newJanitor(c Config, cluster *kfake.Cluster, address string) (*janitor, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(address),
		kgo.MetadataMinAge(10 * time.Millisecond), // the topics as they are, not of some seconds ago
	}
	if c.dial != nil {
		options = append(options, kgo.Dialer(c.dial))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: connect its janitor: %w", err)
	}
	return &janitor{config: c, cluster: cluster, client: client, admin: kadm.NewClient(client)}, nil
}

func (j *janitor) close() { j.client.Close() }

// run tidies now and then every minute, until ctx ends.
func (j *janitor) run(ctx context.Context) {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		if err := j.tidy(ctx); err != nil && ctx.Err() == nil {
			j.config.Logger.Error("old records not deleted", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tidy deletes what is older than the retention, and what is more than a topic
// may hold, and then the oldest until the data fits.
func (j *janitor) tidy(ctx context.Context) error {
	l, err := j.survey(ctx)
	if err != nil {
		return err
	}
	if err := j.deleteOld(ctx, l); err != nil {
		return err
	}
	if err := j.deleteSurplus(ctx, l); err != nil {
		return err
	}
	if j.config.MaxBytes <= 0 {
		return nil
	}
	held, err := measure(j.config.disk, j.config.Directory)
	if err != nil || held.size <= j.config.MaxBytes {
		return err
	}
	if err := j.shrink(ctx, held); err != nil {
		return err
	}
	left, err := measure(j.config.disk, j.config.Directory)
	if err != nil {
		return err
	}
	message := "embedded broker over its size; the oldest records were deleted before their retention ended"
	if left.size > j.config.MaxBytes {
		message = "embedded broker over its size, and nothing is left that can go; raise max_bytes, or use fewer partitions"
	}
	j.config.Logger.Warn(message,
		zap.Int64("bytes_before", held.size), zap.Int64("bytes", left.size), zap.Int64("max_bytes", j.config.MaxBytes))
	return nil
}

// deleteOld deletes the records that are older than their topic keeps them, all
// but the newest of each partition.
func (j *janitor) deleteOld(ctx context.Context, l logs) error {
	ages := make(map[time.Duration][]string)
	for topic, k := range l.keeping {
		if k.age > 0 {
			ages[k.age] = append(ages[k.age], topic)
		}
	}
	cuts := make(kadm.Offsets)
	for age, topics := range ages {
		keep, err := j.admin.ListOffsetsAfterMilli(ctx, time.Now().Add(-age).UnixMilli(), topics...)
		if err != nil {
			return fmt.Errorf("list the offsets by time: %w", err)
		}
		keep.Each(func(from kadm.ListedOffset) {
			if from.Err == nil && from.Offset >= 0 { // unknown is not old
				l.cut(cuts, tp{from.Topic, from.Partition}, from.Offset)
			}
		})
	}
	return j.delete(ctx, cuts)
}

// deleteSurplus deletes the oldest segments of partitions that are larger than
// their topic says, without going below that.
func (j *janitor) deleteSurplus(ctx context.Context, l logs) error {
	limited := false
	for _, k := range l.keeping {
		limited = limited || k.bytes >= 0
	}
	if !limited {
		return nil
	}
	held, err := measure(j.config.disk, j.config.Directory)
	if err != nil {
		return err
	}
	cuts := make(kadm.Offsets)
	for at, segments := range held.partitions {
		k, known := l.keeping[at.topic]
		if !known || k.bytes < 0 {
			continue
		}
		size := int64(0)
		for _, s := range segments {
			size += s.size
		}
		for ; len(segments) > 1 && size-segments[0].size >= k.bytes; segments = segments[1:] {
			size -= segments[0].size
		}
		l.cut(cuts, at, segments[0].first)
	}
	return j.delete(ctx, cuts)
}

// delete deletes what lies before the given offsets.
func (j *janitor) delete(ctx context.Context, cuts kadm.Offsets) error {
	if len(cuts) == 0 {
		return nil
	}
	deleted, err := j.admin.DeleteRecords(ctx, cuts)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return fmt.Errorf("delete records: %w", err)
	}
	return nil
}

// logs is where each partition begins and ends, and how long a topic is kept.
type logs struct {
	topics       kadm.TopicDetails
	starts, ends kadm.ListedOffsets
	keeping      map[string]keeping
}

func (j *janitor) survey(ctx context.Context) (l logs, err error) {
	if l.topics, err = j.admin.ListTopics(ctx); err != nil {
		return logs{}, fmt.Errorf("list topics: %w", err)
	}
	names := l.topics.Names()
	if len(names) == 0 {
		return l, nil
	}
	l.keeping = make(map[string]keeping)
	for _, name := range names {
		l.keeping[name] = j.keeping(name)
	}
	if l.starts, err = j.admin.ListStartOffsets(ctx, names...); err != nil {
		return logs{}, fmt.Errorf("list the first offsets: %w", err)
	}
	if l.ends, err = j.admin.ListEndOffsets(ctx, names...); err != nil {
		return logs{}, fmt.Errorf("list the last offsets: %w", err)
	}
	return l, nil
}

// start gives the first offset of a partition, if it is known.
func (l logs) start(at tp) (offset int64, ok bool) {
	start, ok := l.starts.Lookup(at.topic, at.partition)
	return start.Offset, ok && start.Err == nil
}

// cut adds the offset up to which a partition is to be deleted, at most up to
// its newest record. Where nothing would go, or the partition is not known,
// nothing is added.
func (l logs) cut(cuts kadm.Offsets, at tp, to int64) {
	start, ok := l.start(at)
	end, ended := l.ends.Lookup(at.topic, at.partition)
	if !ok || !ended || end.Err != nil {
		return
	}
	if to = min(to, end.Offset-1); to > start {
		cuts.AddOffset(at.topic, at.partition, to, -1)
	}
}
