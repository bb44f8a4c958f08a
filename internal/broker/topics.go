package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Errors of Kafka's that kafka-go has no name for.
const (
	// ErrUnknownTopicID is a broker's answer to a fetch by topic id when no
	// topic has that id: it was deleted, and perhaps made again under its name.
	ErrUnknownTopicID = kafka.Error(100)
	// ErrInconsistentTopicID is its answer when id and partition do not belong together.
	ErrInconsistentTopicID = kafka.Error(103)
)

// TopicID tells a topic from a later one of the same name. It is zero where
// the broker is too old to have one (Kafka before 2.8).
type TopicID [16]byte

// Incarnation gives 32 bits of the id, which tokens, cursors, ETags and commits carry.
func (id TopicID) Incarnation() uint32 {
	return binary.BigEndian.Uint32(id[:4]) ^ binary.BigEndian.Uint32(id[12:])
}

// Topic is what a broker says of a topic.
type Topic struct {
	Name string
	ID   TopicID
	// Leaders holds the broker that leads each partition, by partition; -1 where none does now.
	Leaders []int32
}

// Partitions counts the topic's partitions.
func (t Topic) Partitions() int32 { return int32(len(t.Leaders)) }

// Topic asks a broker, not a cache, for one topic. The error is
// kafka.UnknownTopicOrPartition when there is none of that name.
func (c *Client) Topic(ctx context.Context, name string) (Topic, error) {
	answer, err := c.metadata(ctx, []string{name})
	if err != nil {
		return Topic{}, err
	}
	if len(answer.Topics) != 1 {
		return Topic{}, fmt.Errorf("describe topic %q: %w", name, kafka.UnknownTopicOrPartition)
	}
	t, err := topicOf(name, &answer.Topics[0])
	if err != nil {
		return Topic{}, err
	}
	return t, nil
}

// TopicSpec describes a topic to be made.
type TopicSpec struct {
	Name string
	// Partitions is at least 1.
	Partitions int
	// Replication is the number of copies; 0 leaves it to the broker.
	Replication int
	// Config holds topic settings by Kafka's names, such as retention.ms.
	Config map[string]string
}

// Ensure gives the topic, and makes it first where it is missing. Then it
// returns when every partition has a leader, so that the next request finds it.
// A topic that is there already is left as it is, and given as it is: one whose
// broker is down must not hold those who need the other partitions.
func (c *Client) Ensure(ctx context.Context, spec TopicSpec) (Topic, error) {
	t, err := c.Topic(ctx, spec.Name)
	if !errors.Is(err, kafka.UnknownTopicOrPartition) {
		return t, err
	}
	replication := spec.Replication
	if replication == 0 {
		replication = -1
	}
	config := kafka.TopicConfig{Topic: spec.Name, NumPartitions: spec.Partitions, ReplicationFactor: replication}
	for name, value := range spec.Config {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	made, err := c.api.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{config}})
	if err == nil {
		err = made.Errors[spec.Name]
	}
	if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return Topic{}, fmt.Errorf("create topic %q: %w", spec.Name, err)
	}
	return c.await(ctx, spec.Name)
}

// await asks for a topic that was just made until each of its partitions has a
// leader. Creation is asynchronous in Kafka, and another broker may not have heard of it.
func (c *Client) await(ctx context.Context, name string) (Topic, error) {
	for {
		t, err := c.Topic(ctx, name)
		if err == nil && t.led() {
			return t, nil
		}
		if err != nil && !errors.Is(err, kafka.UnknownTopicOrPartition) && !errors.Is(err, kafka.LeaderNotAvailable) {
			return Topic{}, err
		}
		select {
		case <-ctx.Done():
			return Topic{}, fmt.Errorf("wait for the leaders of topic %q: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (t Topic) led() bool {
	for _, leader := range t.Leaders {
		if leader < 0 {
			return false
		}
	}
	return len(t.Leaders) > 0
}

// Setting reads one setting of a topic by Kafka's name, "" if the broker does not tell.
func (c *Client) Setting(ctx context.Context, topic, name string) (string, error) {
	answer, err := c.api.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name},
	}}})
	if err != nil {
		return "", fmt.Errorf("read setting %s of topic %q: %w", name, topic, err)
	}
	for _, resource := range answer.Resources {
		if resource.Error != nil {
			return "", fmt.Errorf("read setting %s of topic %q: %w", name, topic, resource.Error)
		}
		for _, entry := range resource.ConfigEntries {
			if entry.ConfigName == name {
				return entry.ConfigValue, nil
			}
		}
	}
	return "", nil
}

// Set changes one setting of a topic by Kafka's name. Kafka before 2.3 cannot.
func (c *Client) Set(ctx context.Context, topic, name, value string) error {
	answer, err := c.api.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	for i := 0; err == nil && i < len(answer.Resources); i++ {
		err = answer.Resources[i].Error
	}
	if err != nil {
		return fmt.Errorf("set %s of topic %q: %w", name, topic, err)
	}
	return nil
}

// Millis gives a duration as Kafka's settings carry it.
func Millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
