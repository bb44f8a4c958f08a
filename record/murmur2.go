package record

import "encoding/binary"

// The constants of murmur2 as Kafka's Java client has them; the seed is its own.
const (
	murmurSeed  uint32 = 0x9747b28c
	murmurMul   uint32 = 0x5bd1e995
	murmurShift        = 24
)

// Murmur2 hashes a key as Kafka's Java client does, and with it kafkajs,
// franz-go, and librdkafka with partitioner=murmur2_random.
func Murmur2(key []byte) uint32 {
	h := murmurSeed ^ uint32(len(key)) //nolint:gosec // no key is 4 GiB long
	for len(key) >= 4 {
		h = murmurBlock(h, binary.LittleEndian.Uint32(key))
		key = key[4:]
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(key[0])
		h *= murmurMul
	}
	return murmurEnd(h)
}

// Partition gives the partition of n in which a Java producer would put the
// key: the hash without its sign bit, modulo n. It panics if n is not positive.
func Partition(key []byte, n int32) int32 {
	if n <= 0 {
		panic("record: Partition of a topic without partitions")
	}
	return place(Murmur2(key), n)
}

func place(hash uint32, n int32) int32 {
	return int32(hash&0x7fffffff) % n //nolint:gosec // the sign bit is off
}

// murmurBlock mixes four bytes of the key into the hash.
func murmurBlock(h, k uint32) uint32 {
	k *= murmurMul
	k ^= k >> murmurShift
	k *= murmurMul
	return h*murmurMul ^ k
}

// murmurEnd mixes the last bytes through the whole hash.
func murmurEnd(h uint32) uint32 {
	h ^= h >> 13
	h *= murmurMul
	return h ^ h>>15
}
