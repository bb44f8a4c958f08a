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

// janitor deletes old records by Kafka's own DeleteRecords. It always leaves a
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
	options := []kgo.Opt{kgo.SeedBrokers(address)}
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

// tidy deletes what is older than the retention, and then the oldest of all
// until the data fits.
func (j *janitor) tidy(ctx context.Context) error {
	if j.config.Retention > 0 {
		if err := j.deleteBefore(ctx, time.Now().Add(-j.config.Retention)); err != nil {
			return err
		}
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

// deleteBefore deletes the records older than the given time, all but the newest of each partition.
func (j *janitor) deleteBefore(ctx context.Context, limit time.Time) error {
	l, err := j.survey(ctx)
	if err != nil || len(l.topics) == 0 {
		return err
	}
	keep, err := j.admin.ListOffsetsAfterMilli(ctx, limit.UnixMilli(), l.topics.Names()...)
	if err != nil {
		return fmt.Errorf("list the offsets by time: %w", err)
	}
	cuts := make(kadm.Offsets)
	keep.Each(func(from kadm.ListedOffset) {
		if from.Err == nil && from.Offset >= 0 { // unknown is not old
			l.cut(cuts, tp{from.Topic, from.Partition}, from.Offset)
		}
	})
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

// logs is where each partition begins and ends.
type logs struct {
	topics       kadm.TopicDetails
	starts, ends kadm.ListedOffsets
}

func (j *janitor) survey(ctx context.Context) (l logs, err error) {
	if l.topics, err = j.admin.ListTopics(ctx); err != nil {
		return logs{}, fmt.Errorf("list topics: %w", err)
	}
	names := l.topics.Names()
	if len(names) == 0 {
		return l, nil
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
