package broker

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Coordinators asks which broker coordinates each of many groups. A group that is
// missing from the map has none now; the error says why.
func (c *Client) Coordinators(ctx context.Context, groups []string) (map[string]int32, error) {
	const many, newest = 4, 4
	version, err := c.version(ctx, anyBroker, (&kmsg.FindCoordinatorRequest{}).Key(), span{0, newest})
	if err != nil {
		return nil, err
	}
	found := make(map[string]int32, len(groups))
	var why error
	take := func(group string, node int32, code int16) {
		if err := failure(code); err != nil {
			why = fmt.Errorf("find the coordinator of group %q: %w", group, err)
		} else {
			found[group] = node
		}
	}
	if version < many {
		for _, group := range groups {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.SetVersion(version)
			r.CoordinatorKey = group
			answer, err := c.ask(ctx, anyBroker, r)
			if err != nil {
				return found, err
			}
			told := answer.(*kmsg.FindCoordinatorResponse)
			take(group, told.NodeID, told.ErrorCode)
		}
		return found, why
	}
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.SetVersion(version)
	r.CoordinatorKeys = groups
	answer, err := c.ask(ctx, anyBroker, r)
	if err != nil {
		return nil, err
	}
	for _, told := range answer.(*kmsg.FindCoordinatorResponse).Coordinators {
		take(told.Key, told.NodeID, told.ErrorCode)
	}
	return found, why
}

// GroupTopics names the topics of a group whose commits are wanted.
type GroupTopics struct {
	Group  string
	Topics []TopicPartitions
}

// Committed is what a group has committed on a partition.
type Committed struct {
	Group, Topic string
	Partition    int32
	// Offset is where the group goes on, -1 if it has committed nothing.
	Offset   int64
	Metadata string
}

// Commits asks a coordinator for the commits of many groups. Each gets those that
// were told, also that there is none. The second function gets the groups that
// could not be asked for, and why; of other groups too nothing may be told for
// single partitions.
func (c *Client) Commits(ctx context.Context, coordinator int32, of []GroupTopics, each func(Committed), failed func(group string, err error)) {
	c.commits(ctx, coordinator, of, func(told Committed, err error) {
		if err == nil {
			each(told)
		}
	}, failed)
}

// commits does so, and tells the error of a single partition too.
func (c *Client) commits(ctx context.Context, coordinator int32, of []GroupTopics, each func(Committed, error), failed func(group string, err error)) {
	const many, newest = 8, 9 // from 10 on topics go by their ids
	version, err := c.version(ctx, coordinator, (&kmsg.OffsetFetchRequest{}).Key(), span{1, newest})
	if err != nil {
		for _, g := range of {
			failed(g.Group, err)
		}
		return
	}
	if version < many {
		for _, g := range of {
			if err := c.commitsOfOne(ctx, coordinator, version, g, each); err != nil {
				failed(g.Group, err)
			}
		}
		return
	}
	r := kmsg.NewPtrOffsetFetchRequest()
	r.SetVersion(version)
	r.Groups = make([]kmsg.OffsetFetchRequestGroup, len(of))
	for i, g := range of {
		asked := &r.Groups[i]
		asked.Default()
		asked.Group = g.Group
		asked.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(g.Topics))
		for j, t := range g.Topics {
			asked.Topics[j].Topic, asked.Topics[j].Partitions = t.Topic, t.Partitions
		}
	}
	answer, err := c.ask(ctx, coordinator, r)
	if err != nil {
		for _, g := range of {
			failed(g.Group, err)
		}
		return
	}
	told := make(map[string]bool, len(of))
	for _, g := range answer.(*kmsg.OffsetFetchResponse).Groups {
		told[g.Group] = true
		if err := groupFailure(g.ErrorCode); err != nil {
			failed(g.Group, fmt.Errorf("read the commits of group %q: %w", g.Group, err))
			continue
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				give(each, g.Group, t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
			}
		}
		if g.ErrorCode != 0 { // and then it may say nothing of its partitions
			none(of, g.Group, each)
		}
	}
	for _, g := range of {
		if !told[g.Group] {
			failed(g.Group, fmt.Errorf("read the commits of group %q: it is missing from the answer", g.Group))
		}
	}
}

// commitsOfOne asks a broker before Kafka 3.0, which takes one group at a time.
func (c *Client) commitsOfOne(ctx context.Context, coordinator int32, version int16, g GroupTopics, each func(Committed, error)) error {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.SetVersion(version)
	r.Group = g.Group
	r.Topics = make([]kmsg.OffsetFetchRequestTopic, len(g.Topics))
	for i, t := range g.Topics {
		r.Topics[i].Topic, r.Topics[i].Partitions = t.Topic, t.Partitions
	}
	m, err := c.ask(ctx, coordinator, r)
	if err != nil {
		return err
	}
	answer := m.(*kmsg.OffsetFetchResponse)
	if err := groupFailure(answer.ErrorCode); err != nil {
		return fmt.Errorf("read the commits of group %q: %w", g.Group, err)
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			give(each, g.Group, t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
		}
	}
	if answer.ErrorCode != 0 {
		none([]GroupTopics{g}, g.Group, each)
	}
	return nil
}

// groupFailure tells whether a group's commits are not known. One that nobody
// has consumed in yet has none, and that is known.
func groupFailure(code int16) error {
	if kafka.Error(code) == kafka.GroupIdNotFound {
		return nil
	}
	return failure(code)
}

// give hands on what is told of a partition.
func give(each func(Committed, error), group, topic string, partition int32, offset int64, metadata *string, code int16) {
	c := Committed{Group: group, Topic: topic, Partition: partition, Offset: max(offset, -1)}
	if metadata != nil {
		c.Metadata = *metadata
	}
	each(c, failure(code))
}

// none tells that a group has committed nothing.
func none(of []GroupTopics, group string, each func(Committed, error)) {
	for _, g := range of {
		if g.Group != group {
			continue
		}
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				each(Committed{Group: group, Topic: t.Topic, Partition: p, Offset: -1}, nil)
			}
		}
	}
}
