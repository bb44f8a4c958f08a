package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// FetchRequest asks one broker for records of partitions that it leads.
type FetchRequest struct {
	// Leader is the broker to ask.
	Leader int32
	// From lists what to read. Partitions of one topic stand together.
	From []FetchFrom
	// MaxWait is how long the broker may hold the request while there is nothing new.
	MaxWait time.Duration
	// MaxBytes bounds the whole answer and each partition's share of it. The
	// first batch always comes whole, whatever its size.
	MaxBytes int32
}

// FetchFrom is a partition and the first offset wanted of it.
type FetchFrom struct {
	Topic     string
	ID        TopicID // zero: the whole request goes by name, so that a recreated topic is not noticed
	Partition int32
	Offset    int64
	// After is the epoch of what was read before Offset, as Fetched gave it. With
	// it the broker tells when the log is not that one any more (CutError). Kafka
	// before 2.7 and the embedded broker do not know of this.
	After Epoch
}

// Fetched is what one partition had.
type Fetched struct {
	Topic     string
	Partition int32
	// Records are the committed data records at or after the offset asked for.
	Records []Record
	// Next is the offset to ask for next. It moves over control batches,
	// aborted transactions and compacted holes even when Records is empty.
	Next int64
	// HighWatermark is the offset after the last record that all in-sync
	// replicas have; an open transaction may keep Next below it.
	HighWatermark int64
	// Stable is the offset up to which transactions are decided: committed
	// records can be read up to here. Brokers set it to HighWatermark without
	// open transactions.
	Stable int64
	// Epoch is that of the last batch before Next; After where there was none.
	Epoch Epoch
	// LogStart is the first offset that is still there.
	LogStart int64
	// Err is the partition's own error: kafka.OffsetOutOfRange,
	// kafka.NotLeaderForPartition, ErrUnknownTopicID and the like, or that the
	// bytes at Next cannot be read, or, as ErrBatchTooLarge, those before Next.
	// Records before them are given all the same.
	Err error
}

// Record is a record as it lies in the log.
type Record struct {
	record.Record
	Offset int64
	// Time is when the log took the record, for topics with LogAppendTime;
	// otherwise what the producer wrote.
	Time time.Time
	// LogTime reports whether Time is the log's. The embedded broker does not say
	// so of its batches, and all count as having the log's time there.
	LogTime bool
}

// Fetch reads committed records: control batches and the records of aborted
// transactions are passed over. The error is for the whole request; each
// partition has its own in Fetched. The records' bytes alias the response.
func (c *Client) Fetch(ctx context.Context, q FetchRequest) ([]Fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, q.MaxWait+requestTimeout)
	defer cancel()
	r, err := c.fetchRequest(ctx, q)
	if err != nil {
		return nil, err
	}
	m, err := c.ask(ctx, q.Leader, r)
	if err != nil {
		return nil, err
	}
	answer := m.(*kmsg.FetchResponse)
	if err := failure(answer.ErrorCode); err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}

	fetched := make([]Fetched, 0, len(q.From))
	allowed := &allowance{c.decompressor, maxDecompressed}
	eachFetched(r.Version, answer, q.From, func(f FetchFrom, p *kmsg.FetchResponseTopicPartition) {
		got := decode(f, p, allowed)
		for i := range got.Records {
			got.Records[i].LogTime = got.Records[i].LogTime || c.unmarked.Load()
		}
		fetched = append(fetched, got)
	})
	return fetched, nil
}

// logAppendTime is the type of a batch's times if the log gave them.
const logAppendTime = 1

// From version 13 on, fetches go by topic id.
const fetchByTopicID = 13

// fetchRequest writes the question.
func (c *Client) fetchRequest(ctx context.Context, q FetchRequest) (*kmsg.FetchRequest, error) {
	const readCommitted = 4
	ours := span{readCommitted, fetchByTopicID}
	for _, f := range q.From {
		if f.ID == (TopicID{}) {
			ours.most = fetchByTopicID - 1
		}
	}
	version, err := c.version(ctx, q.Leader, (&kmsg.FetchRequest{}).Key(), ours)
	if err != nil {
		return nil, err
	}
	r := kmsg.NewPtrFetchRequest()
	r.SetVersion(version)
	r.ReplicaID = -1
	r.MaxWaitMillis = millis(q.MaxWait)
	r.MinBytes = 1
	r.MaxBytes = q.MaxBytes
	r.IsolationLevel = 1 // read committed
	r.SessionEpoch = -1  // no fetch session: sessions tie a reader to one connection
	for _, f := range q.From {
		if n := len(r.Topics); n == 0 || r.Topics[n-1].Topic != f.Topic || r.Topics[n-1].TopicID != f.ID {
			t := kmsg.NewFetchRequestTopic()
			t.Topic, t.TopicID = f.Topic, f.ID
			r.Topics = append(r.Topics, t)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = f.Partition, f.Offset, q.MaxBytes
		p.CurrentLeaderEpoch, p.LastFetchedEpoch, p.LogStartOffset = -1, f.After.wire(), -1
		t := &r.Topics[len(r.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return r, nil
}

// eachFetched sets what was answered beside what was asked. Brokers answer in the
// order of the question, so that the next one is mostly right.
func eachFetched(version int16, answer *kmsg.FetchResponse, from []FetchFrom, each func(FetchFrom, *kmsg.FetchResponseTopicPartition)) {
	next := 0
	for i := range answer.Topics {
		t := &answer.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			for n := range from {
				at := (next + n) % len(from)
				f := &from[at]
				if f.Partition == p.Partition && (version >= fetchByTopicID && f.ID == t.TopicID || version < fetchByTopicID && f.Topic == t.Topic) {
					next = at + 1
					each(*f, p)
					break
				}
			}
		}
	}
}

// decode reads the batches of one partition.
func decode(f FetchFrom, p *kmsg.FetchResponseTopicPartition, allowed *allowance) Fetched {
	var after int64
	p.RecordBatches, after = crowded(p.RecordBatches)
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: f.Offset, Topic: f.Topic, Partition: f.Partition, IsolationLevel: kgo.ReadCommitted(),
	}, p, allowed, nil)
	out := Fetched{
		Topic: f.Topic, Partition: f.Partition,
		Next: next, HighWatermark: p.HighWatermark, Stable: p.LastStableOffset, LogStart: p.LogStartOffset,
		Err: failure(p.ErrorCode),
	}
	if !inOrder(f.Offset, got.Records, next) {
		// A batch that says so is broken, or its end lies beyond what a number holds.
		out.Next = f.Offset
		out.Err = fmt.Errorf("decode records of topic %q, partition %d, offset %d: a batch has offsets that no log has", f.Topic, f.Partition, f.Offset)
		return out
	}
	var bomb *kgo.ErrDecompressTooLarge
	switch {
	case out.Err != nil || errors.Is(got.Err, errEnough):
	case errors.As(got.Err, &bomb):
		out.Next = max(next, bomb.NextOffset)
		out.Err = fmt.Errorf("decode records of topic %q, partition %d, offset %d: %w: it decompresses to more than %d bytes",
			f.Topic, f.Partition, next, ErrBatchTooLarge, maxDecompressed)
	case got.Err != nil:
		out.Err = fmt.Errorf("decode records of topic %q, partition %d: %w", f.Topic, f.Partition, got.Err)
	case next == f.Offset && after > 0 && len(got.Records) == 0:
		out.Next = max(next, after)
		out.Err = fmt.Errorf("decode records of topic %q, partition %d, offset %d: %w: it has more than %d records",
			f.Topic, f.Partition, next, ErrBatchTooLarge, maxBatchRecords)
	case next == f.Offset && len(p.RecordBatches) > 0:
		// Asking again would be answered the same, at once and for ever.
		out.Err = fmt.Errorf("decode records of topic %q, partition %d: no whole batch in %d bytes at offset %d",
			f.Topic, f.Partition, len(p.RecordBatches), next)
	}
	out.heed(f.After, p)
	if len(got.Records) == 0 {
		return out
	}
	out.Records = make([]Record, len(got.Records))
	for i, r := range got.Records {
		headers := make([]record.Header, len(r.Headers))
		for j, h := range r.Headers {
			headers[j] = record.Header{Key: h.Key, Value: h.Value}
		}
		out.Records[i] = Record{
			Record: record.Record{Key: r.Key, Value: r.Value, Headers: headers},
			Offset: r.Offset, Time: r.Timestamp, LogTime: r.Attrs.TimestampType() == logAppendTime,
		}
	}
	return out
}

// inOrder tells whether the offsets of records rise from the one asked for to the
// one to go on with.
func inOrder(from int64, records []*kgo.Record, next int64) bool {
	for _, r := range records {
		if r.Offset < from || r.Offset >= next {
			return false
		}
		from = r.Offset + 1
	}
	return from <= next
}
