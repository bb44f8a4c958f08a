package broker

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Arrival says that something has come into a partition.
type Arrival struct {
	// From is the question it answers.
	From FetchFrom
	// End is the offset after the last record that all in-sync replicas have.
	End int64
	// Records says that there are records, decided or not, and not markers of
	// transactions alone.
	Records bool
	// Err is the partition's own error.
	Err error
}

// Arrivals waits at a leader until something is there at or after the given
// offsets, and says where. It gives nothing when nothing came within the wait. It
// does not read what came: one batch of it comes along, and is dropped.
func (c *Client) Arrivals(ctx context.Context, leader int32, from []FetchFrom, wait time.Duration) ([]Arrival, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+requestTimeout)
	defer cancel()
	r, err := c.fetchRequest(ctx, FetchRequest{Leader: leader, From: from, MaxWait: wait, MaxBytes: 1})
	if err != nil {
		return nil, err
	}
	r.IsolationLevel = 0 // what is not decided yet has come, too
	m, err := c.ask(ctx, leader, r)
	if err != nil {
		return nil, err
	}
	answer := m.(*kmsg.FetchResponse)
	if err := failure(answer.ErrorCode); err != nil {
		return nil, fmt.Errorf("wait for records: %w", err)
	}
	var arrivals []Arrival
	eachFetched(r.Version, answer, from, func(f FetchFrom, p *kmsg.FetchResponseTopicPartition) {
		err := failure(p.ErrorCode)
		if err == nil && p.HighWatermark <= f.Offset && len(p.RecordBatches) == 0 {
			return
		}
		arrivals = append(arrivals, Arrival{From: f, End: p.HighWatermark, Records: hasRecords(p), Err: err})
	})
	return arrivals, nil
}

// hasRecords tells whether a partition has got more than markers of transactions.
// Where what came is not all here, it has.
func hasRecords(p *kmsg.FetchResponseTopicPartition) bool {
	const attributesAt, control = 21, 1 << 5
	batches := p.RecordBatches
	for len(batches) >= batchHeader {
		size := lengthEnds + int64(binary.BigEndian.Uint32(batches[lengthAt:]))
		if batches[magicAt] != recordBatchKind || binary.BigEndian.Uint16(batches[attributesAt:])&control == 0 || size > int64(len(batches)) {
			return true
		}
		last := int64(binary.BigEndian.Uint64(batches)) + int64(binary.BigEndian.Uint32(batches[lastDeltaAt:])) //nolint:gosec // offsets are 63 bits
		if batches = batches[size:]; len(batches) == 0 {
			return last+1 < p.HighWatermark
		}
	}
	return true
}

// TimeAt gives the time of the batch that holds a partition's first record at or
// after an offset.
func (c *Client) TimeAt(ctx context.Context, leader int32, from FetchFrom) (time.Time, error) {
	const attributesAt, firstTimeAt, maxTimeAt, appendTime = 21, 27, 35, 1 << 3
	r, err := c.fetchRequest(ctx, FetchRequest{Leader: leader, From: []FetchFrom{from}, MaxBytes: 1})
	if err != nil {
		return time.Time{}, err
	}
	m, err := c.ask(ctx, leader, r)
	if err != nil {
		return time.Time{}, err
	}
	answer := m.(*kmsg.FetchResponse)
	var at time.Time
	err = failure(answer.ErrorCode)
	eachFetched(r.Version, answer, []FetchFrom{from}, func(_ FetchFrom, p *kmsg.FetchResponseTopicPartition) {
		if p.ErrorCode != 0 {
			err = failure(p.ErrorCode)
			return
		}
		batch := p.RecordBatches
		if len(batch) < batchHeader || batch[magicAt] != recordBatchKind {
			return
		}
		when := batch[firstTimeAt:]
		if binary.BigEndian.Uint16(batch[attributesAt:])&appendTime != 0 {
			when = batch[maxTimeAt:]
		}
		at = time.UnixMilli(int64(binary.BigEndian.Uint64(when))) //nolint:gosec // it is signed on the wire
	})
	if err == nil && at.IsZero() {
		err = errors.New("no record is there that tells its time")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the time of topic %q, partition %d, offset %d: %w", from.Topic, from.Partition, from.Offset, err)
	}
	return at, nil
}

// Compare orders what a fetch asks for by topic and partition, as it wants it.
func (f FetchFrom) Compare(other FetchFrom) int {
	return cmp.Or(cmp.Compare(f.Topic, other.Topic), cmp.Compare(f.Partition, other.Partition))
}
