package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Batch is an encoded record batch (magic 2) for one partition.
type Batch struct {
	Partition int32
	Bytes     []byte
}

// Produced is a broker's verdict on one batch.
type Produced struct {
	Partition int32
	// BaseOffset is the offset of the batch's first record, when Err is nil. A
	// batch that the broker had already taken gets the offset it has.
	BaseOffset int64
	// Err is the broker's refusal, by kafka.Error code; Message may say more.
	Err     error
	Message string
}

// Produce sends batches of one topic to the broker that leads their
// partitions, with acks=all, and gives a verdict for each. An error means that
// nothing is known, and that the batches may be in the log or not; only with
// ErrNotSent they surely are not.
//
// With a topic id, a broker that knows how (Kafka 4.1 and newer) refuses a
// batch for a topic that was deleted and made again.
func (c *Client) Produce(ctx context.Context, leader int32, t Topic, batches []Batch) ([]Produced, error) {
	const byTopicID, byName, recordBatches = 13, 12, 3
	ours := span{recordBatches, byTopicID}
	if t.ID == (TopicID{}) {
		ours.most = byName
	}
	version, err := c.version(ctx, leader, (&kmsg.ProduceRequest{}).Key(), ours)
	if err != nil {
		return nil, fmt.Errorf("produce to topic %q: %w: %w", t.Name, ErrNotSent, err)
	}
	r := kmsg.NewPtrProduceRequest()
	r.SetVersion(version)
	r.Acks = -1
	r.TimeoutMillis = millis(requestTimeout)
	if deadline, ok := ctx.Deadline(); ok {
		r.TimeoutMillis = millis(max(time.Until(deadline), time.Millisecond))
	}
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = t.Name, t.ID
	topic.Partitions = make([]kmsg.ProduceRequestTopicPartition, len(batches))
	for i, b := range batches {
		p := &topic.Partitions[i]
		p.Default()
		p.Partition, p.Records = b.Partition, b.Bytes
	}
	r.Topics = []kmsg.ProduceRequestTopic{topic}
	answer, err := c.ask(ctx, leader, r)
	if err != nil {
		return nil, err
	}
	verdicts := make([]Produced, 0, len(batches))
	for _, at := range answer.(*kmsg.ProduceResponse).Topics {
		for _, p := range at.Partitions {
			v := Produced{Partition: p.Partition, BaseOffset: p.BaseOffset, Err: failure(p.ErrorCode)}
			if p.ErrorMessage != nil {
				v.Message = *p.ErrorMessage
			}
			verdicts = append(verdicts, v)
		}
	}
	for _, b := range batches {
		if !slices.ContainsFunc(verdicts, func(v Produced) bool { return v.Partition == b.Partition }) {
			return nil, fmt.Errorf("produce to topic %q: no verdict for partition %d", t.Name, b.Partition)
		}
	}
	if len(verdicts) != len(batches) {
		return nil, fmt.Errorf("produce to topic %q: %d verdicts for %d batches", t.Name, len(verdicts), len(batches))
	}
	return verdicts, nil
}
