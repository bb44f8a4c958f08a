package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// bomb is a batch whose records decompress to n MiB; it is a thousandth of that itself.
func bomb(t *testing.T, offset int64, n int, records int32) []byte {
	t.Helper()
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	_, err := z.Write(make([]byte, 1<<20))
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	compressed.Write(bytes.Repeat(compressed.Bytes(), n-1)) // gzip may go on with another part
	b := kmsg.RecordBatch{
		FirstOffset: offset, PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(kgo.CodecGzip), LastOffsetDelta: records - 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: records, Records: compressed.Bytes(),
	}
	return sealed(b)
}

// sealed gives a batch its length and checksum.
func sealed(b kmsg.RecordBatch) []byte {
	b.Length = int32(len(b.AppendTo(nil)) - lengthEnds)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

// at moves a batch to an offset.
func at(offset int64, batch []byte) []byte {
	binary.BigEndian.PutUint64(batch, uint64(offset))
	return batch
}

func decoded(from int64, allowed *allowance, batches ...[]byte) Fetched {
	p := kmsg.NewFetchResponseTopicPartition()
	p.RecordBatches = bytes.Join(batches, nil)
	return decode(FetchFrom{Topic: "orders", Offset: from}, &p, allowed)
}

// A batch that would fill the memory is not read; what stands before it is.
func TestBatchTooLarge(t *testing.T) {
	allowed := func() *allowance { return &allowance{newDecompressor(), maxDecompressed} }
	now := time.Now()

	t.Run("decompressed", func(t *testing.T) {
		huge := bomb(t, 2, 1<<9, 3)
		if len(huge) > 4<<20 {
			t.Fatalf("the bomb has %d bytes", len(huge))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := decoded(2, allowed(), huge, at(5, batch(0, now, now, "c")))
		if !errors.Is(f.Err, ErrBatchTooLarge) || f.Next != 5 || len(f.Records) != 0 {
			t.Errorf("next %d, %d records, %v", f.Next, len(f.Records), f.Err)
		}
		runtime.ReadMemStats(&after)
		// A buffer that grows by doubling takes a few times its end.
		if took := after.TotalAlloc - before.TotalAlloc; took > 12*maxDecompressed {
			t.Errorf("took %d MiB", took>>20)
		}
	})

	t.Run("records", func(t *testing.T) {
		many := bomb(t, 2, 8, maxBatchRecords+1)
		f := decoded(0, allowed(), at(0, batch(0, now, now, "a", "b")), many)
		wantValues(t, f, 2, "a", "b")
		f = decoded(2, allowed(), many)
		if want := int64(2 + maxBatchRecords + 1); !errors.Is(f.Err, ErrBatchTooLarge) || f.Next != want {
			t.Errorf("next %d, want %d: %v", f.Next, want, f.Err)
		}
	})

	t.Run("an answer of many is read in parts", func(t *testing.T) {
		compressor, err := kgo.DefaultCompressor(kgo.GzipCompression())
		if err != nil {
			t.Fatal(err)
		}
		large := kmsg.Record{Value: make([]byte, 1<<20)}
		large.Length = int32(len(large.AppendTo(nil)) - 1)
		large.Length = int32(len(large.AppendTo(nil)) - len(binary.AppendVarint(nil, int64(large.Length))))
		records, codec := compressor.Compress(new(bytes.Buffer), large.AppendTo(nil))
		var all [][]byte
		for i := range 5 {
			all = append(all, sealed(kmsg.RecordBatch{
				FirstOffset: int64(i), PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(codec),
				ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: bytes.Clone(records),
			}))
		}
		few := &allowance{newDecompressor(), 2 << 20}
		f := decoded(0, few, all...)
		if f.Err != nil || len(f.Records) != 2 || f.Next != 2 {
			t.Errorf("%d records, next %d, %v", len(f.Records), f.Next, f.Err)
		}
		// Nothing is left for the next partition, which is no error of its own.
		if f := decoded(0, few, all...); f.Err != nil || len(f.Records) != 0 || f.Next != 0 {
			t.Errorf("%d records, next %d, %v", len(f.Records), f.Next, f.Err)
		}
	})
}
