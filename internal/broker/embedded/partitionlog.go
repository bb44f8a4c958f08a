package embedded

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// partitionLog is what recovery reads of a partition.
type partitionLog struct {
	tp
	directory string
	last      string // the newest segment's file without its suffix; empty: none
	end       int64  // the next offset
	epoch     int32  // of the leader, at the end
	index     []byte // of the newest segment
	sequences map[int64]*sequences
	open      map[int64]int16 // producer ids of transactions without an end → their epochs
	ended     map[int64]int16 // and of those with one → the newest epoch
}

// batch is the head of a record batch.
type batch struct {
	offset, next  int64
	leaderEpoch   int32
	transactional bool
	control       bool
	producer
	sequence int32
	records  int32
}

const (
	lengthAt      = 8
	leaderEpochAt = 12
	deltaAt       = 23
	sequenceAt    = 53
	recordsAt     = 57
	afterLength   = 12 // what the length does not count

	transactionalBit = 1 << 4
	controlBit       = 1 << 5
)

// batches goes through a segment up to its first batch that is not whole, as
// kfake does, and gives where that is.
func batches(segment []byte, each func(batch)) (whole int) {
	for {
		at := segment[whole:]
		if len(at) < headerEnd {
			return whole
		}
		size := int64(binary.BigEndian.Uint32(at[lengthAt:])) + afterLength
		if size < headerEnd || size > int64(len(at)) ||
			binary.BigEndian.Uint32(at[crcAt:]) != crc32.Checksum(at[attributesAt:size], castagnoli) {
			return whole
		}
		b := batch{
			offset:      int64(binary.BigEndian.Uint64(at)), //nolint:gosec // these and the next as they were written
			leaderEpoch: int32(binary.BigEndian.Uint32(at[leaderEpochAt:])),
			sequence:    int32(binary.BigEndian.Uint32(at[sequenceAt:])),
			records:     int32(binary.BigEndian.Uint32(at[recordsAt:])),
		}
		b.next = b.offset + int64(binary.BigEndian.Uint32(at[deltaAt:])) + 1
		b.producer, _ = producerOf(at)
		attributes := binary.BigEndian.Uint16(at[attributesAt:])
		b.transactional, b.control = attributes&transactionalBit != 0, attributes&controlBit != 0
		each(b)
		whole += int(size)
	}
}

// partition repairs a partition's files and reads what the next steps need.
func (r *recovery) partition(l *partitionLog) error {
	l.sequences, l.open, l.ended = make(map[int64]*sequences), make(map[int64]int16), make(map[int64]int16)
	names, err := list(r.disk, l.directory)
	if err != nil {
		return err
	}
	var firsts []int64
	for _, name := range names {
		base, isSegment := strings.CutSuffix(name, ".dat")
		if first, err := strconv.ParseInt(base, 10, 64); isSegment && err == nil {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	for _, first := range firsts {
		if err := r.segment(l, filepath.Join(l.directory, strconv.FormatInt(first, 10))); err != nil {
			return err
		}
	}
	if l.last != "" {
		return errors.Join(keep(r.disk, l.last+".dat"), keep(r.disk, l.last+".idx"))
	}
	return nil
}

// segment repairs a segment: nothing torn at its end, and an entry of the index
// for each batch, all of which is written in the batches too.
func (r *recovery) segment(l *partitionLog, base string) error {
	data, err := r.disk.ReadFile(base + ".dat")
	if err != nil {
		return err
	}
	var index []byte
	whole := batches(data, func(b batch) {
		index = append(index, indexEntry(b)...)
		l.add(b)
	})
	if whole < len(data) {
		if err := shorten(r.disk, base+".dat", int64(whole)); err != nil {
			return err
		}
	}
	there, err := read(r.disk, base+".idx")
	if err != nil {
		return err
	}
	if len(there) != len(index) {
		if err := replace(r.disk, base+".idx", index); err != nil {
			return err
		}
	}
	if whole > 0 {
		l.last, l.index = base, index
	}
	return nil
}

// indexEntry is what kfake writes to the index for a batch: a version, a byte of
// a checksum, the leader's epoch, a time that kfake works out again when it
// reads it, and whether the batch is of a transaction.
func indexEntry(b batch) []byte {
	const size, sumAt, epochAt, transactionAt = 15, 1, 2, 14
	e := make([]byte, size)
	e[0] = formatVersion
	binary.LittleEndian.PutUint32(e[epochAt:], uint32(b.leaderEpoch)) //nolint:gosec // as it was written
	if b.transactional && !b.control {
		e[transactionAt] = 1
	}
	e[sumAt] = byte(crc32.Checksum(e[epochAt:], castagnoli)) //nolint:gosec // the lowest byte
	return e
}

// add notes a batch.
func (l *partitionLog) add(b batch) {
	l.end, l.epoch = b.next, b.leaderEpoch
	switch {
	case b.id < 0:
	case b.control:
		delete(l.open, b.id)
		l.ended[b.id] = max(l.ended[b.id], b.epoch)
	default:
		if b.transactional {
			l.open[b.id] = b.epoch
		}
		s := l.sequences[b.id]
		if s == nil {
			s = &sequences{}
			l.sequences[b.id] = s
		}
		s.add(b)
	}
}

// abortOpen ends the transactions that were open, as kfake does in memory. Their
// producers' epochs are raised first, so that none goes on with half of one. A
// snapshot of a time when they were open no longer has the size of the files.
func (r *recovery) abortOpen(logs []*partitionLog) error {
	newest := make(map[int64]int16)
	for _, l := range logs {
		for id, epoch := range l.open {
			newest[id] = max(newest[id], epoch)
		}
	}
	for id, epoch := range newest {
		if err := r.raiseEpoch(producer{id, epoch}); err != nil {
			return err
		}
	}
	for _, l := range logs {
		for id, epoch := range l.open {
			if err := r.abort(l, producer{id, epoch}); err != nil {
				return err
			}
		}
	}
	return nil
}

// abort writes the end of an aborted transaction.
func (r *recovery) abort(l *partitionLog, p producer) error {
	marker := abortMarker(l, p)
	if err := appendTo(r.disk, l.last+".dat", marker); err != nil {
		return err
	}
	batches(marker, func(b batch) {
		l.index = append(l.index, indexEntry(b)...)
		l.add(b)
	})
	return replace(r.disk, l.last+".idx", l.index)
}

// abortMarker is the record that ends an aborted transaction.
func abortMarker(l *partitionLog, p producer) []byte {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	record := kmsg.Record{Key: key.AppendTo(nil), Value: (&kmsg.EndTxnMarker{}).AppendTo(nil)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) //nolint:gosec // of a few bytes; its own length is one byte
	now := time.Now().UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: l.end, PartitionLeaderEpoch: l.epoch, Magic: 2, Attributes: transactionalBit | controlBit,
		FirstTimestamp: now, MaxTimestamp: now, ProducerID: p.id, ProducerEpoch: p.epoch, FirstSequence: -1,
		NumRecords: 1, Records: record.AppendTo(nil),
	}
	b.Length = int32(len(b.AppendTo(nil)) - afterLength) //nolint:gosec // of a few bytes
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[crcAt:], crc32.Checksum(raw[attributesAt:], castagnoli))
	return raw
}
