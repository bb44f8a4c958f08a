package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribedGroup is what a coordinator says of a consumer group.
type DescribedGroup struct {
	Group string
	// Stable says that the members have what is assigned to them. Between two
	// assignments it is false, and of a group without members.
	Stable bool
	// Members are all there are.
	Members []Member
	// Err is why nothing is known.
	Err error
}

// Member is a member of a consumer group.
type Member struct {
	ID string
	// Assigned are the partitions that are its.
	Assigned []Assigned
}

// Assigned are partitions of a topic that a member has.
type Assigned struct {
	// Topic is the topic's name. The embedded broker gives ID instead, in the
	// newer of the protocols.
	Topic      string
	ID         TopicID
	Partitions []int32
}

// stateStable is how the coordinator calls a group that is.
const stateStable = "Stable"

// Groups asks a coordinator for the members of many groups, and of what is
// assigned to them, in either of Kafka's two protocols. A group that nobody has
// consumed in has no members. All groups are answered, in no order.
func (c *Client) Groups(ctx context.Context, coordinator int32, groups []string) []DescribedGroup {
	version, err := c.version(ctx, coordinator, (&kmsg.DescribeGroupsRequest{}).Key(), span{0, 5})
	if err != nil {
		return failedGroups(groups, err)
	}
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.SetVersion(version)
	r.Groups = groups
	answer, err := c.ask(ctx, coordinator, r)
	if err != nil {
		return failedGroups(groups, err)
	}
	described := make([]DescribedGroup, 0, len(groups))
	var others []string
	for _, g := range answer.(*kmsg.DescribeGroupsResponse).Groups {
		d := DescribedGroup{Group: g.Group, Stable: g.State == stateStable}
		switch err := groupFailure(g.ErrorCode); {
		case err != nil:
			d.Err = fmt.Errorf("describe group %q: %w", g.Group, err)
		case len(g.Members) == 0: // or it is of the protocol that the other request is for
			others = append(others, g.Group)
			continue
		}
		for _, m := range g.Members {
			d.Members = append(d.Members, Member{ID: m.MemberID, Assigned: assigned(m.MemberAssignment)})
		}
		described = append(described, d)
	}
	if len(others) == 0 {
		return described
	}
	return append(described, c.consumerGroups(ctx, coordinator, others)...)
}

// consumerGroups asks for groups of the protocol that came with Kafka 4.0.
func (c *Client) consumerGroups(ctx context.Context, coordinator int32, groups []string) []DescribedGroup {
	version, err := c.version(ctx, coordinator, (&kmsg.ConsumerGroupDescribeRequest{}).Key(), span{0, 1})
	if errors.Is(err, ErrVersion) {
		return failedGroups(groups, nil) // an older broker has no others
	}
	if err != nil {
		return failedGroups(groups, err)
	}
	r := kmsg.NewPtrConsumerGroupDescribeRequest()
	r.SetVersion(version)
	r.Groups = groups
	answer, err := c.ask(ctx, coordinator, r)
	if err != nil {
		return failedGroups(groups, err)
	}
	var described []DescribedGroup
	for _, g := range answer.(*kmsg.ConsumerGroupDescribeResponse).Groups {
		d := DescribedGroup{Group: g.Group, Stable: g.State == stateStable}
		if err := groupFailure(g.ErrorCode); err != nil && !errors.Is(err, kafka.UnsupportedVersion) {
			d.Err = fmt.Errorf("describe group %q: %w", g.Group, err)
		}
		for _, m := range g.Members {
			member := Member{ID: m.MemberID}
			for _, t := range m.Assignment.TopicPartitions {
				member.Assigned = append(member.Assigned, Assigned{t.Topic, t.TopicID, t.Partitions})
			}
			d.Members = append(d.Members, member)
		}
		described = append(described, d)
	}
	return described
}

// failedGroups says the same of all.
func failedGroups(groups []string, err error) []DescribedGroup {
	described := make([]DescribedGroup, len(groups))
	for i, g := range groups {
		described[i] = DescribedGroup{Group: g, Err: err}
	}
	return described
}

// assigned reads what a member was given. What is not written as consumers write
// it gives nothing: other programs use groups too.
func assigned(bytes []byte) []Assigned {
	var a kmsg.ConsumerMemberAssignment
	if len(bytes) == 0 || a.ReadFrom(bytes) != nil {
		return nil
	}
	list := make([]Assigned, 0, len(a.Topics))
	for _, t := range a.Topics {
		list = append(list, Assigned{Topic: t.Topic, Partitions: t.Partitions})
	}
	return list
}
