package deliver

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A window forgets what was done longest ago.
func TestWindow(t *testing.T) {
	w := newWindow(0)
	for i := range maxSeenEach + 2 {
		w.add(strconv.Itoa(i))
		w.add(strconv.Itoa(i))
	}
	w.add("")
	if w.has("0") || w.has("1") || !w.has("2") || !w.has(strconv.Itoa(maxSeenEach+1)) || w.has("") || w.len() != maxSeenEach {
		t.Errorf("%d", w.len())
	}
}

// Whatever is added, and however its share changes, a window has the last streams
// and no others.
func TestWindowAtRandom(t *testing.T) {
	for round := range uint64(20) {
		random := rand.New(rand.NewPCG(round, 2))
		w, most := newWindow(0), 50+random.IntN(300)
		w.resize(most)
		var model []uint64 // hashes that collide in their slots
		for step := range 5000 {
			switch random.IntN(500) {
			case 0:
				most = random.IntN(400)
				w.resize(most)
			default:
				h := random.Uint64N(600)<<54 | 1
				if !slices.Contains(model, h) {
					model = append(model, h)
				}
				w.addHash(h)
			}
			model = model[max(len(model)-most, 0):]
			if w.len() != len(model) {
				t.Fatalf("round %d, step %d: %d are remembered, want %d", round, step, w.len(), len(model))
			}
			if step%100 == 0 {
				for i := range uint64(600) {
					if h := i<<54 | 1; (w.find(h) >= 0) != slices.Contains(model, h) {
						t.Fatalf("round %d, step %d: %d: %t", round, step, i, w.find(h) >= 0)
					}
				}
			}
		}
	}
}

// fill has all windows remember as much as they may.
func fill(all *windows, from int) {
	for _, w := range all.of {
		for i := range w.share() {
			w.add(strconv.Itoa(from*maxSeen + i))
		}
	}
}

// held gives how many streams are remembered.
func (w *windows) held() (n int) {
	for _, one := range w.of {
		n += one.len()
	}
	return n
}

// numbers gives those of so many partitions.
func numbers(n int) (all []int32) {
	for i := range int32(n) {
		all = append(all, i)
	}
	return all
}

// All deliveries of a process together remember no more than the bound, however
// partitions come and go, and what was a partition's is shared out when it goes.
func TestWindowsShare(t *testing.T) {
	m := newMemory(10_000)
	a, b := newWindows(m), newWindows(m)
	for round, step := range []struct{ a, b, share int }{
		{1, 0, 10_000}, {4, 0, 2500}, {4, 6, 1000}, {40, 10, 200}, {3, 10, 10_000 / 13}, {3, 2, 2000}, {0, 2, 5000}, {0, 0, 0}, {1, 0, 10_000},
	} {
		a.keep(numbers(step.a))
		b.keep(numbers(step.b))
		if n := a.held() + b.held(); n > m.most {
			t.Fatalf("round %d: %d are remembered after partitions came", round, n)
		}
		for _, all := range []*windows{a, b} {
			fill(all, round)
			for number := range all.of {
				w := all.window(number, 7) // in the first rounds another life of the topic
				if w.share() != step.share {
					t.Errorf("round %d: a share of %d, want %d", round, w.share(), step.share)
				}
			}
			fill(all, round)
		}
		if n := a.held() + b.held(); n > m.most || n != step.share*(step.a+step.b) {
			t.Errorf("round %d: %d are remembered", round, n)
		}
		if len(m.all) != step.a+step.b {
			t.Errorf("round %d: %d have a share, want %d", round, len(m.all), step.a+step.b)
		}
	}
	if w := a.window(99, 7); w.share() != maxSeenEach || len(m.all) != 1 {
		t.Error("a partition of somebody else has a share")
	}
}

// What 100 partitions that are full take of the heap.
func TestMemoryOfWindows(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, partitions := range []int{1, 10, 100} {
		before := heap()
		all := newWindows(newMemory(maxSeen))
		all.keep(numbers(partitions))
		for number, w := range all.of {
			for i := range w.share() + 10 {
				w.add(fmt.Sprintf("stream %d/%d", number, i))
			}
		}
		used, n := heap()-before, all.held()
		if n != min(maxSeen, partitions*maxSeenEach) || used > 17*n {
			t.Errorf("%d bytes for %d ids", used, n)
		}
		t.Logf("%d partitions: %d ids take %.1f MiB, %.1f bytes each", partitions, n, float64(used)/(1<<20), float64(used)/float64(n))
		runtime.KeepAlive(all)
	}
}

// A delivery that is closed gives its shares back.
func TestSharesAreGivenBack(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		d := r.deliver(options(echo), toSpread)
		r.eventually(func() bool { return len(d.Load().Partitions) == 12 }, func() string { return "no partitions" })
		d.windows.mu.Lock()
		var had []*window
		for _, w := range d.windows.of {
			had = append(had, w)
		}
		d.windows.mu.Unlock()
		shared := func() (n int) {
			remembered.mu.Lock()
			defer remembered.mu.Unlock()
			for _, w := range had {
				if _, ok := remembered.all[w]; ok {
					n++
				}
			}
			return n
		}
		if n := shared(); n != 12 || len(had) != 12 {
			t.Errorf("%d of %d windows have a share", n, len(had))
		}
		d.Close()
		if n := shared(); n != 0 {
			t.Errorf("%d windows have a share after the end", n)
		}
	})
}

// What is read before the first try is bounded by the share, in records and bytes.
func TestRecallReadsTheShare(t *testing.T) {
	const total = 3000
	for _, c := range []struct {
		share, body   int
		least, fewest int64 // of the records that are read
	}{
		{1000, 0, total - 1000, 1000},            // as many as may be remembered
		{100_000, 0, 0, total},                   // all
		{1000, 2000, total - 100, firstRecalled}, // 100 kB
		{10, 2000, total - 10, 1},                // 1 kB
		{20_000, 2000, total - 1000, 700},        // 2 MB
	} {
		virtually(t, func(t *testing.T, r *rig) {
			for from := 0; from < total; from += 100 {
				var batch []record.Record
				for i := from; i < from+100; i++ {
					rec := r.request("s"+strconv.Itoa(i), "", strings.Repeat("x", c.body))
					if c.body == 0 { // a record of somebody else's
						rec.Headers = slices.DeleteFunc(rec.Headers, func(h record.Header) bool { return h.Key != record.HeaderCorrelationID })
					}
					batch = append(batch, rec)
				}
				if _, err := r.put(t.Context(), testTopic, 0, batch...); err != nil {
					t.Fatal(err)
				}
			}
			var first atomic.Int64
			first.Store(total)
			r.cluster.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
				r.cluster.KeepControl()
				for _, topic := range q.(*kmsg.FetchRequest).Topics {
					for _, p := range topic.Partitions {
						first.Store(min(first.Load(), p.FetchOffset))
					}
				}
				return nil, nil, false
			})
			topic, err := r.client.Topic(t.Context(), testTopic)
			if err != nil {
				t.Fatal(err)
			}
			w := newWindow(1)
			w.resize(c.share)
			reader := newReader(&Delivery{config: Config{Broker: r.client}})
			if err := reader.recall(t.Context(), topic, topic.Leaders[0], 0, w, 0, total); err != nil {
				t.Fatal(err)
			}
			if first.Load() < c.least || int64(w.len()) < c.fewest {
				t.Errorf("share %d, bodies of %d bytes: read from %d on, %d remembered", c.share, c.body, first.Load(), w.len())
			}
			for i := total - w.len(); i < total; i++ {
				if !w.has("s" + strconv.Itoa(i)) {
					t.Fatalf("%d is not among the last %d", i, w.len())
				}
			}
			if w.to != total {
				t.Errorf("it knows up to %d", w.to)
			}
		})
	}
}
