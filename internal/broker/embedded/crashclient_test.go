package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// crashClient sends single requests and repeats none.
type crashClient struct {
	ctx    context.Context
	client *kgo.Client
}

func (c crashClient) request(r kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	return c.client.SeedBrokers()[0].Request(ctx, r)
}

// topics gives the partitions and ids of all topics.
func (c crashClient) topics() (map[string]kmsg.MetadataResponseTopic, error) {
	answer, err := c.request(kmsg.NewPtrMetadataRequest())
	if err != nil {
		return nil, err
	}
	topics := make(map[string]kmsg.MetadataResponseTopic)
	for _, t := range answer.(*kmsg.MetadataResponse).Topics {
		topics[*t.Topic] = t
	}
	return topics, nil
}

func (c crashClient) createTopic(name string, partitions int32) error {
	r := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, 1
	r.Topics = append(r.Topics, t)
	answer, err := c.request(r)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode)
}

func (c crashClient) deleteTopic(name string) error {
	r := kmsg.NewPtrDeleteTopicsRequest()
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &name
	r.Topics, r.TopicNames = append(r.Topics, t), []string{name}
	answer, err := c.request(r)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode)
}

func (c crashClient) growTopic(name string, partitions int32) error {
	r := kmsg.NewPtrCreatePartitionsRequest()
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, partitions
	r.Topics = append(r.Topics, t)
	answer, err := c.request(r)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode)
}

// initProducer asks for a producer id, of a transactional id if that is given.
func (c crashClient) initProducer(transactional string) (producer, error) {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.ProducerID, r.ProducerEpoch = -1, -1
	if transactional != "" {
		r.TransactionalID, r.TransactionTimeoutMillis = &transactional, 60_000
	}
	answer, err := c.request(r)
	if err != nil {
		return producer{}, err
	}
	a := answer.(*kmsg.InitProducerIDResponse)
	return producer{a.ProducerID, a.ProducerEpoch}, kerr.ErrorForCode(a.ErrorCode)
}

// sent is a batch as a producer sends it.
type sent struct {
	tp
	producer
	transactional bool
	sequence      int32
	values        []string
}

func (s sent) batch() []byte {
	var records []byte
	for i, value := range s.values {
		r := kmsg.Record{Value: []byte(value), OffsetDelta: int32(i)}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		r.Length = int32(len(r.AppendTo(nil)) - len(binary.AppendVarint(nil, int64(r.Length))))
		records = r.AppendTo(records)
	}
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, ProducerID: s.id, ProducerEpoch: s.epoch, FirstSequence: s.sequence,
		LastOffsetDelta: int32(len(s.values) - 1), NumRecords: int32(len(s.values)), Records: records,
		FirstTimestamp: now, MaxTimestamp: now,
	}
	if s.transactional {
		b.Attributes = transactionalBit
	}
	b.Length = int32(len(b.AppendTo(nil)) - afterLength)
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[crcAt:], crc32.Checksum(raw[attributesAt:], castagnoli))
	return raw
}

const transactionalID = "worker-1"

// produce sends a batch and gives its offset. The first one of a transaction in
// a partition begins it there.
func (c crashClient) produce(s sent) (int64, error) {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 5000
	if s.transactional {
		id := transactionalID
		r.TransactionID = &id
	}
	t := kmsg.NewProduceRequestTopic()
	t.Topic = s.topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = s.partition, s.batch()
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	topics, err := c.topics()
	if err != nil {
		return 0, err
	}
	r.Topics[0].TopicID = topics[s.topic].TopicID
	answer, err := c.request(r)
	if err != nil {
		return 0, err
	}
	a := answer.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return a.BaseOffset, kerr.ErrorForCode(a.ErrorCode)
}

// endTransaction ends one and gives the epoch for the next.
func (c crashClient) endTransaction(p producer, commit bool) (producer, error) {
	r := kmsg.NewPtrEndTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = transactionalID, p.id, p.epoch, commit
	answer, err := c.request(r)
	if err != nil {
		return p, err
	}
	a := answer.(*kmsg.EndTxnResponse)
	if a.ProducerID >= 0 {
		p = producer{a.ProducerID, a.ProducerEpoch}
	}
	return p, kerr.ErrorForCode(a.ErrorCode)
}

// position is what a group has committed.
type position struct {
	offset   int64
	metadata string
}

const crashGroup = "workers"

func (c crashClient) commit(at tp, p position) error {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.Generation = crashGroup, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = at.topic
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Partition, partition.Offset, partition.Metadata = at.partition, p.offset, &p.metadata
	t.Partitions = append(t.Partitions, partition)
	r.Topics = append(r.Topics, t)
	topics, err := c.topics()
	if err != nil {
		return err
	}
	r.Topics[0].TopicID = topics[at.topic].TopicID
	answer, err := c.request(r)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode)
}

// committed gives what the group has committed in the given topics.
func (c crashClient) committed(topics map[string]kmsg.MetadataResponseTopic) (map[tp]position, error) {
	r := kmsg.NewPtrOffsetFetchRequest()
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = crashGroup
	r.Group = crashGroup
	names := make(map[[16]byte]string)
	for name, known := range topics {
		names[known.TopicID] = name
		var partitions []int32
		for _, p := range known.Partitions {
			partitions = append(partitions, p.Partition)
		}
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.TopicID, t.Partitions = name, known.TopicID, partitions
		g.Topics = append(g.Topics, t)
		old := kmsg.NewOffsetFetchRequestTopic()
		old.Topic, old.Partitions = name, partitions
		r.Topics = append(r.Topics, old)
	}
	r.Groups = append(r.Groups, g)
	answer, err := c.request(r)
	if err != nil {
		return nil, err
	}
	positions := make(map[tp]position)
	for _, g := range answer.(*kmsg.OffsetFetchResponse).Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); errors.Is(err, kerr.GroupIDNotFound) {
			return positions, nil
		} else if err != nil {
			return nil, err
		}
		for _, t := range g.Topics {
			name := t.Topic
			if name == "" {
				name = names[t.TopicID]
			}
			for _, p := range t.Partitions {
				if p.Offset >= 0 && p.Metadata != nil {
					positions[tp{name, p.Partition}] = position{p.Offset, *p.Metadata}
				}
			}
		}
	}
	return positions, nil
}

// content is what a partition holds.
type content struct {
	start, end, stable int64
	records            map[int64]string // by offset
	visible            map[int64]string // to readers of committed records
}

// fetch reads some batches.
func (c crashClient) fetch(at tp, id [16]byte, from int64, isolation int8) (kmsg.FetchResponseTopicPartition, error) {
	r := kmsg.NewPtrFetchRequest()
	r.MaxBytes, r.ReplicaID, r.SessionEpoch, r.IsolationLevel = 1<<20, -1, -1, isolation
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = at.topic, id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = at.partition, from, 1<<20
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := c.request(r)
	if err != nil {
		return kmsg.FetchResponseTopicPartition{}, err
	}
	a := answer.(*kmsg.FetchResponse).Topics[0].Partitions[0]
	return a, kerr.ErrorForCode(a.ErrorCode)
}

// read reads a partition from its start to its end.
func (c crashClient) read(at tp, id [16]byte) (content, error) {
	all := content{records: make(map[int64]string), visible: make(map[int64]string)}
	from, err := c.start(at)
	if err != nil {
		return all, err
	}
	for {
		a, err := c.fetch(at, id, from, 0)
		if err != nil {
			return all, err
		}
		all.start, all.end, all.stable = a.LogStartOffset, a.HighWatermark, a.LastStableOffset
		if from >= all.end {
			return all, c.readCommitted(at, id, &all)
		}
		next, err := parse(a.RecordBatches, all.records, func(kmsg.RecordBatch) bool { return true })
		if err != nil || next <= from {
			return all, fmt.Errorf("records from %d of %d are not there: %w", from, all.end, err)
		}
		from = next
	}
}

func (c crashClient) start(at tp) (int64, error) {
	const earliest = -2
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = at.topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = at.partition, earliest, -1
	t.Partitions = append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	answer, err := c.request(r)
	if err != nil {
		return 0, err
	}
	a := answer.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	return a.Offset, kerr.ErrorForCode(a.ErrorCode)
}

// parse adds the records of some batches and gives the offset after them.
func parse(raw []byte, records map[int64]string, wanted func(kmsg.RecordBatch) bool) (next int64, err error) {
	whole := batches(raw, func(b batch) { next = b.next })
	for raw = raw[:whole]; len(raw) > 0; {
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw); err != nil {
			return 0, err
		}
		raw = raw[afterLength+b.Length:]
		if !wanted(b) || b.Attributes&controlBit != 0 {
			continue
		}
		for rest := b.Records; len(rest) > 0; {
			length, n := binary.Varint(rest)
			var r kmsg.Record
			if err := r.ReadFrom(rest[:n+int(length)]); err != nil {
				return 0, err
			}
			rest = rest[n+int(length):]
			records[b.FirstOffset+int64(r.OffsetDelta)] = string(r.Value)
		}
	}
	return next, nil
}

// readCommitted reads what is committed, as clients do: without the batches of
// aborted transactions, each from its first offset to its end.
func (c crashClient) readCommitted(at tp, id [16]byte, all *content) error {
	type begin struct{ id, offset int64 }
	known, aborting := make(map[begin]bool), make(map[int64]bool)
	for from := all.start; from < all.stable; {
		a, err := c.fetch(at, id, from, 1)
		if err != nil {
			return err
		}
		next, err := parse(a.RecordBatches, all.visible, func(b kmsg.RecordBatch) bool {
			for _, t := range a.AbortedTransactions {
				first := begin{t.ProducerID, t.FirstOffset}
				if t.ProducerID == b.ProducerID && t.FirstOffset <= b.FirstOffset && !known[first] {
					known[first], aborting[b.ProducerID] = true, true
				}
			}
			if b.Attributes&controlBit != 0 {
				delete(aborting, b.ProducerID)
			}
			return b.Attributes&transactionalBit == 0 || !aborting[b.ProducerID]
		})
		if err != nil || next <= from {
			return fmt.Errorf("committed records from %d of %d are not there: %w", from, all.stable, err)
		}
		from = next
	}
	return nil
}
