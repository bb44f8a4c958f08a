package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
)

// Commit commits offsets with metadata for owned partitions, under the current
// generation. A refusal only because a rebalance is going on is tried again until
// ctx ends. The error is ErrNotMember if the coordinator does not know this
// member, or if not all partitions are its own, or not in the Tenure that they name.
func (m *Membership) Commit(ctx context.Context, offsets []CommitOffset) error {
	if len(offsets) == 0 {
		return nil
	}
	var refused error // because of a rebalance, as said last
	for {
		m.mu.Lock()
		id, generation, idle, changed := m.id, m.generation, m.phase == idle, m.changed
		owns := m.owns(offsets)
		m.mu.Unlock()
		if !owns {
			return fmt.Errorf("commit in group %q: %w", m.config.Group, ErrNotMember)
		}
		err := m.commit(ctx, id, generation, offsets)
		switch {
		case err == nil:
			return nil
		case unknownMember(err):
			m.mu.Lock()
			m.expel(id)
			m.mu.Unlock()
			return fmt.Errorf("commit in group %q: %w: %w", m.config.Group, ErrNotMember, err)
		case isAny(err, kafka.IllegalGeneration):
			if idle {
				signal(m.nudge) // which finds out whether the group still knows this member
			}
		case isAny(err, kafka.RebalanceInProgress):
		case refused != nil && over(ctx):
			return fmt.Errorf("commit in group %q: %w: %w", m.config.Group, err, refused)
		default:
			return fmt.Errorf("commit in group %q: %w", m.config.Group, err)
		}
		refused = err
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("commit in group %q: %w: %w", m.config.Group, ctx.Err(), err)
		}
	}
}

// Committed reads what the group has committed for partitions of the topic. A
// partition that has an error of its own is missing from the map, and the error
// says why.
func (m *Membership) Committed(ctx context.Context, partitions []int32) (map[int32]CommitOffset, error) {
	coordinator, err := m.findCoordinator(ctx)
	if err != nil {
		return nil, err
	}
	committed := make(map[int32]CommitOffset, len(partitions))
	m.client.commits(ctx, coordinator,
		[]GroupTopics{{m.config.Group, []TopicPartitions{{m.config.Topic, partitions}}}},
		func(c Committed, failed error) {
			if failed != nil {
				err = errors.Join(err, fmt.Errorf("read the commit of partition %d in group %q: %w", c.Partition, m.config.Group, failed))
				return
			}
			committed[c.Partition] = CommitOffset{Partition: c.Partition, Offset: c.Offset, Metadata: c.Metadata}
		},
		func(_ string, failed error) { err = errors.Join(err, failed) })
	if err != nil && notNow(err) {
		m.forgetCoordinator(coordinator)
	}
	for _, p := range partitions {
		if _, ok := committed[p]; !ok && err == nil {
			err = fmt.Errorf("read the commit of partition %d in group %q: it is missing from the answer", p, m.config.Group)
		}
	}
	return committed, err
}
