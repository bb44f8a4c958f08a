package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/segmentio/kafka-go"
)

// Positions to ask Offsets for, besides a Unix time in milliseconds.
const (
	// LogStart is the first offset that is still there.
	LogStart int64 = -2
	// HighWatermark is the offset after the last record that all in-sync replicas have.
	HighWatermark int64 = -1
)

// Offsets asks the leaders of t where the given partitions stand: at LogStart,
// at HighWatermark, or at the first record with at least the given Unix time in
// milliseconds. Where no record is that new it is the high watermark as it was
// before the question: a record that comes meanwhile may be as new, and lies at
// or after it. A partition that did not answer, or has no leader, is missing
// from the map, since unknown is not zero; the error says why, also when others
// did answer.
//
// The question goes by the topic's name: a leader that has not heard yet that
// the topic was deleted and made again answers for the former one.
//
// kafka-go's own ListOffsets is not used: it gives 0 for a partition that is
// missing from the answer.
func (c *Client) Offsets(ctx context.Context, t Topic, partitions []int32, at int64) (map[int32]int64, error) {
	var errs []error
	byLeader := make(map[int32][]int32)
	for _, p := range partitions {
		if p < 0 || p >= t.Partitions() || t.Leaders[p] < 0 {
			errs = append(errs, fmt.Errorf("list offsets of topic %q, partition %d: %w", t.Name, p, kafka.LeaderNotAvailable))
			continue
		}
		byLeader[t.Leaders[p]] = append(byLeader[t.Leaders[p]], p)
	}
	found := make(map[int32]int64, len(partitions))
	// All at once: a broker that does not answer uses up its own time only.
	var asking sync.WaitGroup
	var mu sync.Mutex // guards found and errs
	for leader, led := range byLeader {
		asking.Go(func() {
			offsets, err := c.offsets(ctx, leader, t.Name, led, at)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(found, offsets)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	asking.Wait()
	return found, errors.Join(errs...)
}

// offsets asks one broker.
func (c *Client) offsets(ctx context.Context, leader int32, topic string, partitions []int32, at int64) (map[int32]int64, error) {
	var ends map[int32]int64
	var endErr error
	if at >= 0 { // asked first, see Offsets
		ends, endErr = c.offsets(ctx, leader, topic, partitions, HighWatermark)
	}
	answer, err := c.listOffsets(ctx, leader, []TopicPartitions{{topic, partitions}}, at)
	if err != nil {
		return nil, err
	}
	found := make(map[int32]int64, len(partitions))
	var errs []error
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			switch err := failure(p.ErrorCode); {
			case t.Topic != topic || !slices.Contains(partitions, p.Partition):
				errs = append(errs, fmt.Errorf("list offsets of topic %q: an answer for topic %q, partition %d", topic, t.Topic, p.Partition))
			case err != nil:
				errs = append(errs, fmt.Errorf("list offsets of topic %q, partition %d: %w", topic, p.Partition, err))
			case p.Offset >= 0:
				found[p.Partition] = p.Offset
			case at >= 0: // no record is that new
				if end, ok := ends[p.Partition]; ok {
					found[p.Partition] = end
				} else {
					errs = append(errs, endErr)
				}
			default:
				errs = append(errs, fmt.Errorf("list offsets of topic %q, partition %d: offset %d", topic, p.Partition, p.Offset))
			}
		}
	}
	return found, errors.Join(errs...)
}
