package record

import (
	"regexp"
	"testing"
)

func TestNewID(t *testing.T) {
	shape := regexp.MustCompile(`^[A-Za-z0-9_-]{28}$`)
	seen := make(map[string]bool)
	for _, n := range []int32{1, 2, 3, 8, 32, 100, 1000} {
		for i := range 200 {
			p := int32(i) % n
			id := NewID(p, n)
			if !shape.MatchString(id) || !validID([]byte(id)) {
				t.Fatalf("NewID(%d, %d) = %q", p, n, id)
			}
			if seen[id] {
				t.Fatalf("NewID gave %q twice", id)
			}
			seen[id] = true
			if got := Partition([]byte(id), n); got != p {
				t.Fatalf("NewID(%d, %d) = %q, which murmur2 places in %d", p, n, id, got)
			}
		}
	}
}

func TestNewIDPanics(t *testing.T) {
	for _, tt := range [][2]int32{{0, 0}, {-1, 4}, {4, 4}, {0, -1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("NewID(%d, %d) does not panic", tt[0], tt[1])
				}
			}()
			NewID(tt[0], tt[1])
		}()
	}
}

func FuzzNewID(f *testing.F) {
	f.Add(int32(0), int32(1))
	f.Add(int32(31), int32(32))
	f.Add(int32(4095), int32(4096))
	f.Fuzz(func(t *testing.T, partition, n int32) {
		if n <= 0 || n > 1<<14 || partition < 0 || partition >= n {
			return
		}
		if id := NewID(partition, n); Partition([]byte(id), n) != partition {
			t.Errorf("NewID(%d, %d) = %q, which is in partition %d", partition, n, id, Partition([]byte(id), n))
		}
	})
}

func FuzzCorrelationID(f *testing.F) {
	f.Add([]byte("abc"))
	f.Add([]byte(`"abc"`))
	f.Add([]byte("a\r\nb"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, id []byte) {
		got, ok := CorrelationID([]Header{{Key: "other", Value: []byte("x")}, {Key: HeaderCorrelationID, Value: id}})
		if ok && (got != string(id) || len(id) == 0 || len(id) > maxID) {
			t.Errorf("CorrelationID of %q = %q", id, got)
		}
		for i := range got {
			if got[i] <= ' ' || got[i] > '~' {
				t.Errorf("CorrelationID lets %q through", got)
			}
		}
	})
}
