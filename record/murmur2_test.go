package record

import (
	"fmt"
	"testing"

	"github.com/segmentio/kafka-go"
)

// The vectors of Kafka's own UtilsTest.
func TestMurmur2(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(Murmur2([]byte(key))); got != want {
			t.Errorf("Murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPartition(t *testing.T) {
	for _, tt := range []struct {
		key  string
		n    int32
		want int32
	}{
		{"abc", 1, 0},
		{"abc", 32, 479470107 % 32},
		{"21", 8, (-973932308 & 0x7fffffff) % 8}, // the sign bit goes, as Java's toPositive does it
		{"foobar", 1<<31 - 1, -790332482 & 0x7fffffff % (1<<31 - 1)},
	} {
		if got := Partition([]byte(tt.key), tt.n); got != tt.want {
			t.Errorf("Partition(%q, %d) = %d, want %d", tt.key, tt.n, got, tt.want)
		}
	}
}

func TestPartitionPanics(t *testing.T) {
	for _, n := range []int32{0, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Partition among %d partitions does not panic", n)
				}
			}()
			Partition([]byte("abc"), n)
		}()
	}
}

// kafka-go's balancer is a second implementation of the same function.
func FuzzMurmur2(f *testing.F) {
	for _, key := range []string{"", "a", "ab", "abc", "abcd", "abcde", "\xff\xfe\xfd", "\x00\x00\x00\x80"} {
		f.Add([]byte(key), uint16(32))
	}
	f.Fuzz(func(t *testing.T, key []byte, n uint16) {
		partitions := make([]int, int(n)+1)
		for i := range partitions {
			partitions[i] = i
		}
		if key == nil {
			key = []byte{} // kafka-go does not hash a nil key
		}
		want := kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: key}, partitions...)
		if got := Partition(key, int32(n)+1); int(got) != want {
			t.Errorf("Partition(%q, %d) = %d, kafka-go says %d", key, int(n)+1, got, want)
		}
	})
}

func BenchmarkNewID(b *testing.B) {
	for _, n := range []int32{1, 32, 1000} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewID(n/2, n)
			}
		})
	}
}
