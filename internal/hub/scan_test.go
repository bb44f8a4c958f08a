package hub

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// countScans counts the fetches of scans, which no broker holds for long.
func (r *rig) countScans() *atomic.Int64 {
	var n atomic.Int64
	r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		r.KeepControl()
		if q.(*kmsg.FetchRequest).MaxWaitMillis == int32(scanMaxWait.Milliseconds()) {
			n.Add(1)
		}
		return nil, nil, false
	})
	return &n
}

// Clients that all come back together after a restart cost a few passes over
// the log.
func TestCrowdComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const clients = 2000
		r := newRig(t, 1)
		s := r.stream("")
		floors := make([]int64, clients)
		for first := 0; first < clients; first += 100 {
			var replies []record.Reply
			for i := range 100 {
				replies = append(replies, part(fmt.Sprint(first+i), "one"), last(fmt.Sprint(first+i), "two"))
			}
			at := r.put(0, replies...)
			for i := range 100 {
				floors[first+i] = at + int64(2*i)
			}
		}
		scans := r.countScans()
		var crowd sync.WaitGroup
		for i := range clients {
			crowd.Go(func() {
				mine := s
				mine.ID, mine.Floor = fmt.Sprint(i), floors[i]
				sub := r.hub.Follow(mine, nil)
				defer sub.Close()
				for _, want := range []string{fmt.Sprintf("reply one @0/%d", mine.Floor), fmt.Sprintf("reply two @0/%d", mine.Floor+1), "end replied-end"} {
					if got := tell(next(sub)); got != want {
						t.Errorf("%q instead of %q", got, want)
					}
				}
			})
		}
		crowd.Wait()
		// How many come while a pass is under way, and need the next, is up to the scheduler.
		if n := scans.Load(); n > clients/20 {
			t.Errorf("%d fetches for %d clients", n, clients)
		}
	})
}

// A client that reads slowly loses nothing and delays nobody, and what it has
// not read takes no memory.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replies = 1000
		r := newRig(t, 1)
		r.hub = r.newHub(Config{WindowBytes: 20_000})
		s := r.stream("a")
		slow, quick := r.follow(s, nil), r.follow(s, nil)
		expect(t, slow, "caught up")
		expect(t, quick, "caught up")
		for i := range int64(replies) {
			r.put(0, part("a", "x"))
			start := time.Now()
			expect(t, quick, fmt.Sprintf("reply x @0/%d", i))
			if d := time.Since(start); d > 50*time.Millisecond {
				t.Fatalf("reply %d came after %v", i, d)
			}
			if i%100 == 0 {
				expect(t, slow, fmt.Sprintf("reply x @0/%d", i/100))
			}
		}
		if held := r.hub.Stats().WindowBytes; held > 20_000 {
			t.Errorf("%d bytes in the window", held)
		}
		r.put(0, last("a", "y"))
		for i := int64(10); i < replies; i++ {
			expect(t, slow, fmt.Sprintf("reply x @0/%d", i))
		}
		for _, sub := range []*Subscription{slow, quick} {
			expect(t, sub, fmt.Sprintf("reply y @0/%d", replies), "end replied-end")
		}
	})
}

// A client for which nothing comes needs no scan, however far the window moves,
// whether it waits or is busy with its connection.
func TestIdleReaderCostsNoScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.hub = r.newHub(Config{WindowBytes: 5_000})
		idle, busy := r.follow(r.stream("idle"), nil), r.follow(r.stream("busy"), nil)
		expect(t, idle, "caught up")
		expect(t, busy, "caught up")
		r.put(0, part("busy", "one"))
		expect(t, busy, "reply one @0/0")
		scans := r.countScans()
		for range 200 {
			r.put(0, part("other", strings.Repeat("x", 100)))
		}
		r.put(0, last("idle", "y"), last("busy", "y"))
		time.Sleep(time.Second)
		expect(t, idle, "reply y @0/201", "end replied-end")
		expect(t, busy, "reply y @0/202", "end replied-end")
		if n := scans.Load(); n != 0 {
			t.Errorf("%d scans", n)
		}
	})
}

// A subscription that is closed in the middle of a scan leaves nothing behind.
func TestReaderLeavesScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		for range 128 {
			r.put(0, part("a", "x"))
		}
		for i := range 30 {
			sub := r.hub.Follow(s, nil)
			for range i {
				if _, err := next(sub); err != nil {
					t.Fatal(err)
				}
			}
			sub.Close()
		}
		synctest.Wait()
		r.hub.mu.Lock()
		defer r.hub.mu.Unlock()
		p := r.hub.topics[gatewayTopic].partitions[0]
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.readers)+len(p.watching)+len(p.awaiting)+len(p.scan.riding)+len(p.scan.waiting)+p.scan.aside.Len() != 0 {
			t.Errorf("%d readers, %d watching, %d awaiting, %d riding, %d waiting, %d with something put aside",
				len(p.readers), len(p.watching), len(p.awaiting), len(p.scan.riding), len(p.scan.waiting), p.scan.aside.Len())
		}
		if p.scan.bytes != 0 || r.hub.windowBytes.Load() != p.window.bytes {
			t.Errorf("%d bytes put aside, %d of %d in the window", p.scan.bytes, p.window.bytes, r.hub.windowBytes.Load())
		}
	})
}
