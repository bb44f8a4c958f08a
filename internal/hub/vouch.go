package hub

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// vouched lists those of the partitions whose leaders know this life of the
// topic. The ends of logs are asked for by the topic's name, and for a moment
// after a topic was deleted and made again a leader may not have heard of it and
// answer with the former life's. A fetch goes by the topic's id: whoever takes
// one, or says that there is no such offset, knows the id. The offset asked for
// is beyond every log, so that nothing is read for it.
//
// The error tells of the others, as far as their leaders gave one. Where the
// topic has no id all are vouched for.
func vouched(ctx context.Context, b *broker.Client, t broker.Topic, partitions []int32) ([]int32, error) {
	if t.ID == (broker.TopicID{}) {
		return partitions, nil
	}
	byLeader := make(map[int32][]broker.FetchFrom)
	var errs []error
	for _, p := range partitions {
		if p >= t.Partitions() || t.Leaders[p] < 0 {
			errs = append(errs, fmt.Errorf("ask the leader of topic %q, partition %d: %w", t.Name, p, kafka.LeaderNotAvailable))
			continue
		}
		byLeader[t.Leaders[p]] = append(byLeader[t.Leaders[p]], broker.FetchFrom{Topic: t.Name, ID: t.ID, Partition: p, Offset: math.MaxInt64})
	}
	var known []int32
	var asking sync.WaitGroup
	var mu sync.Mutex // guards known and errs
	for leader, from := range byLeader {
		asking.Go(func() {
			got, err := b.Fetch(ctx, broker.FetchRequest{Leader: leader, From: from, MaxBytes: 1})
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			for _, f := range got {
				if f.Err == nil || errors.Is(f.Err, kafka.OffsetOutOfRange) {
					known = append(known, f.Partition)
				} else {
					errs = append(errs, fmt.Errorf("ask the leader of topic %q, partition %d: %w", t.Name, f.Partition, f.Err))
				}
			}
		})
	}
	asking.Wait()
	return known, errors.Join(errs...)
}
