package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// tidyEvery is how often old records are looked for.
const tidyEvery = time.Minute

// steps is in how many equal steps of time the janitor cuts records away until
// the data fits its bound again.
const steps = 16

// janitor deletes old records by Kafka's own DeleteRecords. It always leaves a
// partition its newest record: the end of a partition is not written anywhere
// else, and must survive a kill. The start is forgotten by a kill; deleted
// records that are still on disk come back until the janitor has run, which it
// does first thing.
type janitor struct {
	config Config
	client *kgo.Client
	admin  *kadm.Client
}

func newJanitor(c Config, address string) (*janitor, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		return nil, fmt.Errorf("embedded broker: connect its janitor: %w", err)
	}
	return &janitor{config: c, client: client, admin: kadm.NewClient(client)}, nil
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
	now := time.Now()
	if j.config.Retention > 0 {
		if err := j.deleteBefore(ctx, now.Add(-j.config.Retention)); err != nil {
			return err
		}
	}
	if j.config.MaxBytes <= 0 {
		return nil
	}
	size, oldest, err := j.measure()
	if err != nil || size <= j.config.MaxBytes {
		return err
	}
	before := size
	span := now.Sub(oldest)
	for step := 1; step <= steps && size > j.config.MaxBytes; step++ {
		if err := j.deleteBefore(ctx, oldest.Add(span*time.Duration(step)/steps)); err != nil {
			return err
		}
		if size, _, err = j.measure(); err != nil {
			return err
		}
	}
	j.config.Logger.Warn("embedded broker over its size; the oldest records were deleted before their retention ended",
		zap.Int64("bytes_before", before), zap.Int64("bytes", size), zap.Int64("max_bytes", j.config.MaxBytes))
	return nil
}

// deleteBefore deletes the records older than the given time, all but the newest of each partition.
func (j *janitor) deleteBefore(ctx context.Context, limit time.Time) error {
	topics, err := j.admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	names := topics.Names()
	if len(names) == 0 {
		return nil
	}
	starts, err := j.admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("list the first offsets: %w", err)
	}
	ends, err := j.admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return fmt.Errorf("list the last offsets: %w", err)
	}
	keep, err := j.admin.ListOffsetsAfterMilli(ctx, limit.UnixMilli(), names...)
	if err != nil {
		return fmt.Errorf("list the offsets by time: %w", err)
	}
	cuts := make(kadm.Offsets)
	keep.Each(func(from kadm.ListedOffset) {
		start, ok1 := starts.Lookup(from.Topic, from.Partition)
		end, ok2 := ends.Lookup(from.Topic, from.Partition)
		if from.Err != nil || !ok1 || !ok2 || start.Err != nil || end.Err != nil {
			return // unknown is not old
		}
		cut := min(from.Offset, end.Offset-1)
		if from.Offset >= 0 && cut > start.Offset {
			cuts.AddOffset(from.Topic, from.Partition, cut, -1)
		}
	})
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

// measure gives the size of the segments on disk and the time at which the
// oldest was last written.
func (j *janitor) measure() (size int64, oldest time.Time, err error) {
	oldest = time.Now()
	err = filepath.WalkDir(j.config.Directory, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return ignoreMissing(err)
		}
		info, err := entry.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		size += info.Size()
		if strings.HasSuffix(path, ".dat") && info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
		return nil
	})
	if err != nil {
		return 0, oldest, fmt.Errorf("measure the data directory: %w", err)
	}
	return size, oldest, nil
}

// ignoreMissing passes over files that the broker deletes while they are counted.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
