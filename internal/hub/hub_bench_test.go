package hub

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// crowd is the number of subscriptions open in the benchmarks.
const crowd = 20_000

// BenchmarkDeliver measures one reply from the broker's answer to the one
// subscription that it is for: decoding, the window, the wake and the event.
// The grid is the number of subscriptions open, all of which are served in turn,
// and the size of the body. The number must make no difference but for the
// processor's cache, which holds the smaller crowd only.
//
//	go test -run '^$' -bench Deliver ./internal/hub
func BenchmarkDeliver(b *testing.B) {
	for _, open := range []int{100, crowd} {
		for _, size := range []int{100, 10_000} {
			b.Run(fmt.Sprintf("open=%d/body=%d", open, size), func(b *testing.B) { benchDeliver(b, open, open, size) })
		}
	}
}

// BenchmarkDeliverToFew is BenchmarkDeliver with all replies for the same 100
// subscriptions, while so many others are open: the cache is the same, so the
// figures have to be.
//
//	go test -run '^$' -bench DeliverToFew ./internal/hub
func BenchmarkDeliverToFew(b *testing.B) {
	const few = 100
	for _, open := range []int{few, crowd} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) { benchDeliver(b, open, few, 100) })
	}
}

func benchDeliver(b *testing.B, open, served, size int) {
	h, p := lonePartition(b)
	subs := crowdOf(b, p, open)
	rec := record.Reply{Status: 200, More: true, Body: make([]byte, size)}
	b.ReportAllocs()
	b.SetBytes(int64(size))
	for i := 0; b.Loop(); i++ {
		sub := subs[i%served]
		rec.StreamID = sub.stream.ID
		from, _ := p.position(time.Now())
		p.take(from, broker.Fetched{
			Records: []broker.Record{{Record: rec.Record(), Offset: from.offset}},
			Next:    from.offset + 1, HighWatermark: from.offset + 1,
		}, h.tick())
		h.evict()
		for {
			e, ok, err := sub.look()
			if !ok || err != nil {
				b.Fatal("no reply", err)
			}
			if e.Kind == KindReply {
				break
			}
		}
	}
	runtime.KeepAlive(subs)
}

// BenchmarkIdleSubscription measures what one open and idle subscription costs:
// the heap that it holds, as B/stream, the goroutines that the hub runs for it,
// as goroutines/stream, and the time to open and close it, as ns/stream. Whoever
// waits in Next is not counted: that goroutine is the connection's own.
//
//	go test -run '^$' -bench IdleSubscription ./internal/hub
func BenchmarkIdleSubscription(b *testing.B) {
	held := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first has only made ready to be freed
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	_, p := lonePartition(b)
	before, goroutines := held(), runtime.NumGoroutine()
	subs := crowdOf(b, p, crowd)
	bytes, ran := held()-before, runtime.NumGoroutine()-goroutines
	for b.Loop() {
		for _, sub := range subs {
			sub.Close()
		}
		subs = crowdOf(b, p, crowd)
	}
	b.ReportMetric(bytes/crowd, "B/stream")
	b.ReportMetric(float64(ran)/crowd, "goroutines/stream")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/crowd, "ns/stream")
	for _, sub := range subs {
		sub.Close()
	}
}
