package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Described is what a broker answers when it is asked for one of many topics.
type Described struct {
	Topic
	// Err is why nothing is known of it: kafka.UnknownTopicOrPartition when there
	// is none of that name.
	Err error
}

// Topics asks a broker, not a cache, for many topics at once. Each of the names
// is answered, in their order.
func (c *Client) Topics(ctx context.Context, names []string) ([]Described, error) {
	answer, err := c.metadata(ctx, names)
	if err != nil {
		return nil, err
	}
	place := make(map[string]int, len(names))
	described := make([]Described, len(names))
	for i, name := range names {
		place[name] = i
		described[i] = Described{Topic: Topic{Name: name}, Err: fmt.Errorf("describe topic %q: %w", name, kafka.UnknownTopicOrPartition)}
	}
	for i := range answer.Topics {
		told := &answer.Topics[i]
		if told.Topic == nil {
			continue
		}
		if at, ok := place[*told.Topic]; ok {
			described[at].Topic, described[at].Err = topicOf(names[at], told)
		}
	}
	return described, nil
}

// metadata asks a broker for topics by their names.
func (c *Client) metadata(ctx context.Context, names []string) (*kmsg.MetadataResponse, error) {
	// Before version 4 a question could not say that it is not to create the topic.
	const withoutCreation, withTopicIDs = 4, 12
	version, err := c.version(ctx, anyBroker, (&kmsg.MetadataRequest{}).Key(), span{withoutCreation, withTopicIDs})
	if err != nil {
		return nil, err
	}
	r := kmsg.NewPtrMetadataRequest()
	r.SetVersion(version)
	r.Topics = make([]kmsg.MetadataRequestTopic, len(names))
	for i := range names {
		r.Topics[i].Topic = &names[i]
	}
	answer, err := c.ask(ctx, anyBroker, r)
	if err != nil {
		return nil, err
	}
	told := answer.(*kmsg.MetadataResponse)
	c.unmarked.Store(told.ClusterID != nil && slices.Contains(unmarking, *told.ClusterID))
	return told, nil
}

// unmarking are the ids of clusters that do not say of a batch, as Kafka does,
// that its times are the log's: kfake cannot, nor can the embedded broker, which is
// made of it.
var unmarking = []string{"osmosis-embedded", "kfake"}

// topicOf reads what a broker says of one topic.
func topicOf(name string, told *kmsg.MetadataResponseTopic) (Topic, error) {
	if err := failure(told.ErrorCode); err != nil {
		return Topic{Name: name}, fmt.Errorf("describe topic %q: %w", name, err)
	}
	t := Topic{Name: name, ID: told.TopicID, Leaders: make([]int32, len(told.Partitions))}
	for i := range t.Leaders {
		t.Leaders[i] = -1
	}
	for _, p := range told.Partitions {
		if p.Partition < 0 || int(p.Partition) >= len(t.Leaders) {
			return Topic{Name: name}, fmt.Errorf("describe topic %q: partition %d of %d", name, p.Partition, len(t.Leaders))
		}
		t.Leaders[p.Partition] = p.Leader
	}
	return t, nil
}

// TopicPartitions names some partitions of a topic.
type TopicPartitions struct {
	Topic      string
	Partitions []int32
}

// OffsetsLed asks one broker where partitions of many topics stand that it leads,
// at LogStart or at HighWatermark. Each gets what was told, and what is not told is
// not called for: unknown is not zero. What nobody asked for it may be called for too.
func (c *Client) OffsetsLed(ctx context.Context, leader int32, of []TopicPartitions, at int64, each func(topic string, partition int32, offset int64)) error {
	answer, err := c.listOffsets(ctx, leader, of, at)
	if err != nil {
		return err
	}
	for _, t := range answer.Topics {
		for _, p := range t.Partitions {
			if err := failure(p.ErrorCode); err == nil && p.Offset >= 0 {
				each(t.Topic, p.Partition, p.Offset)
			}
		}
	}
	return nil
}

// listOffsets asks one broker.
func (c *Client) listOffsets(ctx context.Context, leader int32, of []TopicPartitions, at int64) (*kmsg.ListOffsetsResponse, error) {
	// Version 0 answers with lists of segments.
	version, err := c.version(ctx, leader, (&kmsg.ListOffsetsRequest{}).Key(), span{1, 6})
	if err != nil {
		return nil, err
	}
	r := kmsg.NewPtrListOffsetsRequest()
	r.SetVersion(version)
	r.ReplicaID = -1
	r.Topics = make([]kmsg.ListOffsetsRequestTopic, len(of))
	for i, asked := range of {
		t := &r.Topics[i]
		t.Topic = asked.Topic
		t.Partitions = make([]kmsg.ListOffsetsRequestTopicPartition, len(asked.Partitions))
		for j, p := range asked.Partitions {
			t.Partitions[j].Default()
			t.Partitions[j].Partition, t.Partitions[j].Timestamp = p, at
		}
	}
	answer, err := c.ask(ctx, leader, r)
	if err != nil {
		return nil, err
	}
	return answer.(*kmsg.ListOffsetsResponse), nil
}
