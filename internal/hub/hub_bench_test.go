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

// benchCrowd subscribes to streams that get nothing.
func benchCrowd(b *testing.B, h *Hub) []*Subscription {
	b.Helper()
	s := Stream{Topic: gatewayTopic, Partitions: 1, Incarnation: h.topics[gatewayTopic].is.ID.Incarnation(), Expires: time.Now().Add(12 * time.Hour)}
	subs := make([]*Subscription, crowd)
	for i := range subs {
		s.ID = record.NewID(0, 1)
		subs[i] = h.Follow(s, nil)
		if e, ok, err := subs[i].look(); err != nil || ok && e.Kind != KindCaughtUp {
			b.Fatal(e, err)
		}
	}
	return subs
}

// BenchmarkDeliver measures one reply from the broker's answer to the one of
// 20,000 subscriptions that it is for: decoding, the window, the wake and the
// event. The figure does not depend on how many subscriptions there are.
//
//	go test -run '^$' -bench Deliver ./internal/hub
func BenchmarkDeliver(b *testing.B) {
	for _, size := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			h, p := lonePartition(b)
			subs := benchCrowd(b, h)
			rec := record.Reply{Status: 200, More: true, Body: make([]byte, size)}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				sub := subs[i%crowd]
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
		})
	}
}

// BenchmarkSubscription measures what one open and idle subscription costs: the
// time to open and close it, and the heap that it holds in between, as
// B/subscription.
func BenchmarkSubscription(b *testing.B) {
	held := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what the first has only made ready to be freed
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	h, _ := lonePartition(b)
	before := held()
	subs := benchCrowd(b, h)
	bytes := held() - before
	for b.Loop() {
		for _, sub := range subs {
			sub.Close()
		}
		subs = benchCrowd(b, h)
	}
	b.ReportMetric(bytes/crowd, "B/subscription")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/crowd, "ns/subscription")
	for _, sub := range subs {
		sub.Close()
	}
}
