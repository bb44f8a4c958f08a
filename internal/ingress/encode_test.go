package ingress

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// decode reads a batch with kmsg, whose encoder and decoder are not ours.
func decode(t *testing.T, b []byte) (kmsg.RecordBatch, []kmsg.Record) {
	t.Helper()
	var batch kmsg.RecordBatch
	if err := batch.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if int(batch.Length) != len(b)-12 {
		t.Errorf("the length is %d of %d bytes", batch.Length, len(b))
	}
	if sum := crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)); uint32(batch.CRC) != sum {
		t.Errorf("the CRC is %x, want %x", uint32(batch.CRC), sum)
	}
	rest := batch.Records
	var records []kmsg.Record
	for range batch.NumRecords {
		length, n := binary.Varint(rest)
		if n <= 0 || int(length) > len(rest)-n {
			t.Fatalf("record %d says that it has %d bytes of %d", len(records), length, len(rest))
		}
		var r kmsg.Record
		if err := r.ReadFrom(rest[:n+int(length)]); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
		rest = rest[n+int(length):]
	}
	if len(rest) > 0 {
		t.Errorf("%d bytes follow the last record", len(rest))
	}
	return batch, records
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), "name", []byte("header"), uint16(3), int64(7), int16(1), int32(9))
	f.Add([]byte(nil), []byte(nil), "", []byte(nil), uint16(1), int64(0), int16(0), int32(0))
	f.Add([]byte{}, []byte{}, "\xff\x00", []byte{}, uint16(300), int64(-1), int16(-1), int32(-1))
	f.Fuzz(func(t *testing.T, key, value []byte, name string, header []byte, n uint16, producer int64, epoch int16, sequence int32) {
		if len(key) == 0 && n%2 == 0 {
			key = nil // the fuzzer makes no difference
		}
		if len(value) == 0 && n%3 == 0 {
			value = nil
		}
		r := record.Record{Key: key, Value: value, Headers: []record.Header{{Key: name, Value: header}, {Key: "second"}}}
		list := make([]*entry, n%500+1)
		size := batchHead
		for i := range list {
			list[i] = new(entry)
			list[i].load(Request{Record: r})
			size += list[i].size
		}
		now := time.Now()
		id := identity{producer, epoch, sequence}
		prefix := []byte("what was there before")
		encoded := appendBatch(slices.Clone(prefix), id, now, list)
		if !bytes.HasPrefix(encoded, prefix) {
			t.Fatal("the prefix was changed")
		}
		encoded = encoded[len(prefix):]
		if len(encoded) > size {
			t.Errorf("%d bytes, counted as %d", len(encoded), size)
		}
		batch, records := decode(t, encoded)
		if got := (identity{batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence}); got != id {
			t.Errorf("identity %v, want %v", got, id)
		}
		if batch.Magic != 2 || batch.Attributes != 0 || int(batch.LastOffsetDelta) != len(list)-1 || batch.FirstTimestamp != now.UnixMilli() || batch.MaxTimestamp != now.UnixMilli() {
			t.Errorf("head %+v", batch)
		}
		for i, got := range records {
			if int(got.OffsetDelta) != i || got.TimestampDelta64 != 0 || got.Attributes != 0 {
				t.Errorf("record %d: %+v", i, got)
			}
			if !same(got.Key, key) || !same(got.Value, value) {
				t.Errorf("record %d: key %q, value %q, want %q, %q", i, got.Key, got.Value, key, value)
			}
			if len(got.Headers) != 2 || got.Headers[0].Key != name || !same(got.Headers[0].Value, header) || got.Headers[1].Value != nil {
				t.Errorf("record %d: headers %q", i, got.Headers)
			}
		}
	})
}

// same tells nil from empty, as Kafka does.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestNilIsNotEmpty(t *testing.T) {
	for _, r := range []record.Record{{}, {Key: []byte{}, Value: []byte{}}} {
		e := new(entry)
		e.load(Request{Record: r})
		if e.placed != (r.Key != nil) {
			t.Errorf("placed is %t for the key %#v", e.placed, r.Key)
		}
		_, records := decode(t, appendBatch(nil, identity{}, time.Now(), []*entry{e}))
		if !same(records[0].Key, r.Key) || !same(records[0].Value, r.Value) {
			t.Errorf("got %#v, want %#v", records[0], r)
		}
	}
}

func TestPlaceByComesBeforeTheKey(t *testing.T) {
	e := new(entry)
	e.load(Request{Record: record.Record{Key: []byte("key")}, PlaceBy: []byte("stream")})
	for n := range int32(50) {
		if got, ok := e.partition(int(n + 1)); !ok || got != int(record.Partition([]byte("stream"), n+1)) {
			t.Errorf("partition %d of %d, want %d", got, n+1, record.Partition([]byte("stream"), n+1))
		}
	}
}

func TestQueueKeepsOrderOverRemovals(t *testing.T) {
	var q queue
	list := make([]*entry, 6)
	for i := range list {
		list[i] = &entry{size: i}
		q.push(list[i])
	}
	for _, i := range []int{0, 3, 5} { // head, middle, tail
		q.remove(list[i])
	}
	q.pushFront(list[3])
	q.push(list[0])
	var got []int
	q.drain(func(e *entry) { got = append(got, e.size) })
	if want := []int{3, 1, 2, 4, 0}; !slices.Equal(got, want) || !q.empty() || q.tail != nil {
		t.Errorf("got %v, want %v", got, want)
	}
}
