package broker

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Epoch is the leader epoch under which a batch was written: each new leader of
// a partition has a higher one. Two logs that have a batch of one epoch at one
// offset are the same up to there, so that a reader who names the epoch of what
// it has read last learns whether the log in front of it is still the one that
// it has read. The zero value is an epoch that is not known.
type Epoch struct{ plusOne int32 }

// epochOf takes an epoch from the wire, where a negative one is not known.
func epochOf(n int32) Epoch { return Epoch{max(n, -1) + 1} }

func (e Epoch) wire() int32 { return e.plusOne - 1 }

// CutError says that a log was cut off and written anew: brokers have elected a
// leader that did not have all that had been read.
type CutError struct {
	// At is the offset from which on the log may be another one than was read;
	// 0 where the broker cannot tell it.
	At int64
}

func (e *CutError) Error() string {
	return fmt.Sprintf("the log was cut off at offset %d and written anew", e.At)
}

// heed takes from an answer what it says of epochs: that of the last batch that
// was read, and whether the log is the one that was read up to after.
func (f *Fetched) heed(after Epoch, p *kmsg.FetchResponseTopicPartition) {
	f.Epoch = lastEpoch(after, p.RecordBatches, f.Next)
	if end := p.DivergingEpoch.EndOffset; f.Err == nil && end >= 0 {
		if p.DivergingEpoch.Epoch != after.wire() {
			// The broker has nothing of that epoch. How long both had the same
			// before it is not known here.
			end = 0
		}
		f.Err = &CutError{At: end}
	}
}

// lastEpoch gives the epoch of the last batch of an answer that lies before
// next; after, if there is none. Records do not do for this: the batch may be a
// marker of a transaction, or aborted.
func lastEpoch(after Epoch, batches []byte, next int64) Epoch {
	const lengthAt, epochAt, magicAt, deltaAt, least = 8, 12, 16, 23, 27
	for len(batches) >= least {
		size := epochAt + int64(binary.BigEndian.Uint32(batches[lengthAt:]))
		if size < least || size > int64(len(batches)) {
			break
		}
		if batches[magicAt] < 2 {
			return Epoch{} // it has none
		}
		base, delta := binary.BigEndian.Uint64(batches), binary.BigEndian.Uint32(batches[deltaAt:])
		if int64(base)+int64(delta) >= next {
			break
		}
		after = epochOf(int32(binary.BigEndian.Uint32(batches[epochAt:])))
		batches = batches[size:]
	}
	return after
}
