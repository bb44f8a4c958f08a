package autoscale

import (
	"strings"
	"testing"
	"time"
)

// FuzzDecide feeds looks made of arbitrary numbers: a decision stays within its
// bounds, says why, and never takes the last worker away for what is not known.
func FuzzDecide(f *testing.F) {
	f.Add(0, 10, 1, false, []byte("\x05\x10\x20\x00\xff\x03"))
	f.Add(2, 3, 4, true, []byte("\xff\xff\xff\xff\x00\x00\x01\x02\x03\x04\x05"))
	f.Fuzz(func(t *testing.T, least, most, concurrency int, keyed bool, data []byte) {
		c := Config{Min: least, Max: most, Concurrency: concurrency, Keyed: keyed}
		if c.Validate() != nil || len(data) > 4096 {
			return
		}
		bounds := c.withDefaults()
		next := func() int64 {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int64(int8(b)) << (b % 48)
		}
		var h History
		at := start
		for len(data) > 0 {
			at = at.Add(time.Duration(next()&0xffff) * 50 * time.Millisecond)
			m := Measurement{At: at, Workers: int(next() & 0xff), WorkTime: time.Duration(next()), Keys: int(next()), WorkSpread: float64(next())}
			unknown := true
			for range next() & 7 {
				p := Partition{Backlog: next(), Produced: next(), Done: next(), Stalled: time.Duration(next()), Lost: int(next() & 7), Paused: next()&7 == 1, Poisoned: next()&7 == 1}
				unknown = unknown && (p.Backlog < 0 || p.Produced < 0)
				m.Partitions = append(m.Partitions, p)
			}
			h.Look(m)
			d := Decide(c, h)
			if d.Workers < bounds.Min || d.Workers > bounds.Max {
				t.Fatalf("%d is outside of %d to %d: %s", d.Workers, bounds.Min, bounds.Max, d.Reason)
			}
			if unknown && d.From > 0 && d.Workers == 0 {
				t.Fatalf("unknown became zero: %s", d.Reason)
			}
			if strings.TrimSpace(d.Reason) == "" || strings.Contains(d.Reason, "NaN") || strings.Contains(d.Reason, "Inf") {
				t.Fatalf("a reason is %q", d.Reason)
			}
			h.Decided(c, d)
		}
	})
}

// BenchmarkDecide is what one group of 1,000 partitions costs at each look.
func BenchmarkDecide(b *testing.B) {
	var h History
	c := Config{Max: 100}
	for i := range 300 {
		m := Measurement{At: start.Add(time.Duration(i) * 2 * time.Second), WorkTime: time.Millisecond, Partitions: make([]Partition, 1000)}
		for p := range m.Partitions {
			m.Partitions[p] = Partition{Backlog: 3, Produced: int64(20 * i), Done: int64(20*i - 3)}
		}
		h.Look(m)
		h.Decided(c, Decide(c, h))
	}
	for b.Loop() {
		Decide(c, h)
	}
}
