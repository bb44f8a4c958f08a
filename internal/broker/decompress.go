package broker

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What an answer may turn into in memory. The broker bounds the bytes that it
// sends and not what they decompress to: whoever may write to a topic could
// otherwise end the gateway with a megabyte.
const (
	// maxDecompressed bounds what one batch decompresses to, and what is begun
	// of an answer's batches after those before: an answer takes at most twice this.
	maxDecompressed = 128 << 20

	// maxBatchRecords bounds the records of one batch, which in memory are
	// many times what they are on the wire. Producers stay far below: 10,000
	// is librdkafka's bound, 1 MiB a batch is Java's.
	maxBatchRecords = 1 << 19
)

// ErrBatchTooLarge says that a batch decompresses to more than 128 MiB or has
// more than 524,288 records, and is not read. Fetched.Next is the offset after
// it, for readers that choose to go on without it.
var ErrBatchTooLarge = errors.New("the batch is larger than this client reads")

// errEnough ends the decoding of an answer; what follows is asked for again.
var errEnough = errors.New("enough decompressed for one answer")

// newDecompressor makes kgo's decompressor with our bound. kgo gives it out as
// an option of a client only, so there is one for a moment; it dials nobody.
func newDecompressor() kgo.Decompressor {
	client, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(maxDecompressed))
	if err != nil {
		panic(fmt.Sprintf("make a decompressor: %v", err)) // no option of it is a user's
	}
	defer client.Close()
	return client.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
}

// allowance decompresses the batches of one answer until they are enough.
type allowance struct {
	kgo.Decompressor
	left int
}

// Decompress implements kgo.Decompressor.
func (a *allowance) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == kgo.CodecNone {
		return src, nil
	}
	if a.left <= 0 {
		return nil, errEnough
	}
	out, err := a.Decompressor.Decompress(src, codec)
	a.left -= len(out)
	return out, err
}

// The places of a record batch's fields.
const (
	lengthAt        = 8
	magicAt         = 16
	lastDeltaAt     = 23
	recordCountAt   = 57
	batchHeader     = 61
	lengthEnds      = 12
	recordBatchKind = 2
)

// crowded looks for a batch with too many records. It gives what stands before
// it, and the offset after it, or all and 0 when there is none.
func crowded(batches []byte) (before []byte, next int64) {
	for rest := batches; len(rest) >= batchHeader; {
		length := int64(int32(binary.BigEndian.Uint32(rest[lengthAt:]))) + lengthEnds
		if length < lengthEnds || length > int64(len(rest)) {
			break
		}
		if rest[magicAt] == recordBatchKind && int32(binary.BigEndian.Uint32(rest[recordCountAt:])) > maxBatchRecords {
			first := int64(binary.BigEndian.Uint64(rest))
			last := int64(int32(binary.BigEndian.Uint32(rest[lastDeltaAt:])))
			return batches[:len(batches)-len(rest)], first + last + 1
		}
		rest = rest[length:]
	}
	return batches, 0
}
