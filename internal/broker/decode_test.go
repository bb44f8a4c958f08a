package broker

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// resealed makes the checksums of batches right, so that what is behind them is
// decoded too. A batch's length stays as it is.
func resealed(batches []byte) []byte {
	const crcAt, crcEnds = 17, 21
	for rest := batches; len(rest) >= batchHeader; {
		length := int64(int32(binary.BigEndian.Uint32(rest[lengthAt:]))) + lengthEnds
		if length < batchHeader || length > int64(len(rest)) {
			break
		}
		binary.BigEndian.PutUint32(rest[crcAt:], crc32.Checksum(rest[crcEnds:length], crc32.MakeTable(crc32.Castagnoli)))
		rest = rest[length:]
	}
	return batches
}

// FuzzDecode reads whatever a broker may send as the batches of a partition,
// with checksums that are right and with those that came. What is given of it
// is in order, and a reader gets on or is told why it does not.
func FuzzDecode(f *testing.F) {
	now := time.UnixMilli(1_800_000_000_000)
	compressor, err := kgo.DefaultCompressor(kgo.GzipCompression())
	if err != nil {
		f.Fatal(err)
	}
	record := kmsg.Record{Key: []byte("k"), Value: []byte("v"), Headers: []kmsg.Header{{Key: "h", Value: []byte("w")}}}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	packed, codec := compressor.Compress(new(bytes.Buffer), record.AppendTo(nil))
	const control, transactional = 1 << 5, 1 << 4
	for _, batches := range [][]byte{
		batch(0, now, now, "a", "b", "c"),
		append(at(3, batch(0, now, now, "d")), at(9, batch(0, now, now, "e", "f"))...),
		append(at(3, batch(control|transactional, now, now, "\x00\x00\x00\x00\x00\x00")), at(4, batch(transactional, now, now, "g"))...),
		at(3, batch(0, now, now, "whole", "cut off"))[:80],
		at(1<<62, batch(0, now, now, "far")),
		at(math.MaxInt64, batch(0, now, now, "beyond", "all")),
		sealed(kmsg.RecordBatch{
			FirstOffset: 3, PartitionLeaderEpoch: 1, Magic: 2, Attributes: int16(codec), NumRecords: 1,
			ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, Records: packed,
		}),
		sealed(kmsg.RecordBatch{FirstOffset: 3, Magic: 2, LastOffsetDelta: 7, NumRecords: maxBatchRecords + 1}),
		sealed(kmsg.RecordBatch{FirstOffset: 3, Magic: 2, LastOffsetDelta: -9, NumRecords: -1}),
		sealed(kmsg.RecordBatch{FirstOffset: 3, Magic: 1}),
		[]byte("HTTP/1.1 400 Bad Request"),
		nil,
	} {
		f.Add(batches, int64(3), int64(-1), int64(0), true)
		f.Add(batches, int64(0), int64(7), int64(2), false)
	}
	decompressor := newDecompressor()
	f.Fuzz(func(t *testing.T, batches []byte, offset, producer, abortedFrom int64, seal bool) {
		if offset < 0 {
			offset = 0 // nobody asks for such
		}
		if seal {
			batches = resealed(batches)
		}
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches = batches
		if producer >= 0 {
			p.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: producer, FirstOffset: abortedFrom}}
		}
		got := decode(FetchFrom{Topic: "orders", Offset: offset}, &p, &allowance{decompressor, 1 << 20})
		if got.Next < offset {
			t.Errorf("asked for %d, and told to go on at %d", offset, got.Next)
		}
		if got.Err == nil && len(p.RecordBatches) > 0 && got.Next == offset {
			t.Error("the cursor stands still without an error")
		}
		next := offset
		for _, r := range got.Records {
			if r.Offset < next || r.Offset >= got.Next {
				t.Fatalf("a record of offset %d, between %d and %d", r.Offset, next, got.Next)
			}
			next = r.Offset + 1
		}
	})
}
