package ingress

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	// batchHead is the size of a record batch before its records.
	batchHead = 61
	// maxRecordHead is the most that stands before a record's tail: its length,
	// attributes, timestamp delta (always 0) and offset delta.
	maxRecordHead = binary.MaxVarintLen32 + 1 + 1 + binary.MaxVarintLen32

	// Where fields of a batch lie.
	lengthAt = 8  // int32: what follows it
	crcAt    = 17 // uint32: over what follows it
	bodyAt   = 21
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendTail encodes the part of a record that does not depend on its place in
// a batch: key, value and headers.
func appendTail(dst []byte, r record.Record) []byte {
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

// appendBytes encodes bytes with their length; nil, which Kafka tells from
// empty, has the length -1.
func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

// appendBatch encodes a record batch (magic 2, not compressed), the records
// all with the same time. kafka-go's RecordSet does the same in nearly six times
// the time, because it encodes a record whole, twice, in the sender.
func appendBatch(dst []byte, id identity, now time.Time, records []*entry) []byte {
	start := len(dst)
	head := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, // the broker sets it
		Magic:                2,
		LastOffsetDelta:      int32(len(records) - 1), //nolint:gosec // a batch is far smaller
		FirstTimestamp:       now.UnixMilli(),
		MaxTimestamp:         now.UnixMilli(),
		ProducerID:           id.producer,
		ProducerEpoch:        id.epoch,
		FirstSequence:        id.sequence,
		NumRecords:           int32(len(records)), //nolint:gosec // a batch is far smaller
	}
	dst = head.AppendTo(dst)
	for i, e := range records {
		var delta [binary.MaxVarintLen32]byte
		n := binary.PutVarint(delta[:], int64(i))
		dst = binary.AppendVarint(dst, int64(1+1+n+len(e.tail)))
		dst = append(dst, 0, 0) // attributes and timestamp delta
		dst = append(dst, delta[:n]...)
		dst = append(dst, e.tail...)
	}
	batch := dst[start:]
	binary.BigEndian.PutUint32(batch[lengthAt:], uint32(len(batch)-lengthAt-4)) //nolint:gosec // bounded by the queue
	binary.BigEndian.PutUint32(batch[crcAt:], crc32.Checksum(batch[bodyAt:], castagnoli))
	return dst
}
