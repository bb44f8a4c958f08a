package record

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"sync"
)

const (
	// idRandom is how many characters of an id are random: 24 of 6 bits each
	// are 144 bits, more than a UUID has.
	idRandom = 24
	// idLength adds the four characters that are searched for the partition:
	// one block of murmur2, so a try costs a few nanoseconds.
	idLength = idRandom + 4
	// maxID bounds the ids that are accepted, see CorrelationID.
	maxID = 256

	idAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)

// NewID makes a stream id: 28 characters that stand in a URL as they are, 144
// bits of them random, chosen so that [Partition] of the id among n is
// partition. So a worker whose client places by murmur2 answers to the right
// partition with the id as the key. It panics if there is no such partition.
func NewID(partition, n int32) string {
	if partition < 0 || partition >= n {
		panic(fmt.Sprintf("record: NewID for partition %d of %d", partition, n))
	}
	var (
		id   [idLength]byte
		seed [idRandom*6/8 + 4]byte
	)
	for {
		random(seed[:])
		base64.RawURLEncoding.Encode(id[:idRandom], seed[:idRandom*6/8])
		h := murmurSeed ^ idLength
		for i := 0; i < idRandom; i += 4 {
			h = murmurBlock(h, binary.LittleEndian.Uint32(id[i:]))
		}
		// About n tries find the partition. The search begins anywhere, so that
		// the last characters are random too, and has 16 million to try; a
		// topic for which that is not enough gets another beginning.
		next := binary.LittleEndian.Uint32(seed[idRandom*6/8:])
		for range 1 << 24 {
			for i := range uint32(4) {
				id[idRandom+i] = idAlphabet[next>>(6*i)&63]
			}
			if place(murmurEnd(murmurBlock(h, binary.LittleEndian.Uint32(id[idRandom:]))), n) == partition {
				return string(id[:])
			}
			next++
		}
	}
}

// randomness is what is left of the system's random bytes. Asking for a few
// costs nearly as much as asking for many.
type randomness struct {
	bytes [512]byte
	left  int
}

var randomnesses = sync.Pool{New: func() any { return new(randomness) }}

// random fills b with bytes that nobody else gets.
func random(b []byte) {
	r := randomnesses.Get().(*randomness)
	if r.left < len(b) {
		_, _ = rand.Read(r.bytes[:]) // never fails, it ends the process instead
		r.left = len(r.bytes)
	}
	taken := r.bytes[r.left-len(b) : r.left]
	copy(b, taken)
	clear(taken) // what was given away is not kept
	r.left -= len(b)
	randomnesses.Put(r)
}

// validID tells whether a correlation id may name a stream. It is wider than
// what NewID makes, so that ids of another shape can come later.
func validID(id []byte) bool {
	if len(id) == 0 || len(id) > maxID {
		return false
	}
	for _, c := range id {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
