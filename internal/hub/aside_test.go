package hub

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// accounts compares what the hub says that it holds with what is there.
func (r *rig) accounts() (held int64) {
	r.t.Helper()
	seen := make(map[*Entry]bool)
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	for _, p := range r.hub.topics[gatewayTopic].partitions {
		p.mu.Lock()
		for _, e := range p.window.entries {
			held += e.size()
		}
		for reader := range p.readers {
			for _, e := range reader.buffer {
				if !seen[e] {
					seen[e] = true
					held += e.size()
				}
			}
		}
		p.mu.Unlock()
	}
	if counted := r.hub.windowBytes.Load(); counted != held {
		r.t.Fatalf("%d bytes held, %d counted", held, counted)
	}
	return held
}

// Clients that have stopped reading hold no memory beyond the bound of all, take
// none from those who read, and find everything when they go on.
func TestClientsThatStopReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, clients, replies = 1 << 20, 50, 40
		r := newRig(t, 1)
		body := strings.Repeat("x", 80_000)
		for range replies {
			r.put(0, part("a", body), part("b", body))
		}
		r.put(0, last("a", body), last("b", body))
		r.hub = r.newHub(Config{WindowBytes: bound}) // all lies before its window
		subs := make([]*Subscription, clients)
		for i := range subs {
			subs[i] = r.follow(r.stream([]string{"a", "b"}[i%2]), nil)
			expect(t, subs[i], fmt.Sprintf("reply %s @0/%d", body, i%2))
		}
		time.Sleep(2 * tailMaxWait)
		if held := r.accounts(); held > bound {
			t.Errorf("%d bytes held for %d clients that do not read", held, clients)
		}
		for i, sub := range subs {
			for n := 1; n <= replies; n++ {
				expect(t, sub, fmt.Sprintf("reply %s @0/%d", body, 2*n+i%2))
			}
			expect(t, sub, "end replied-end")
			sub.Close()
			r.accounts()
		}
	})
}

// A client that reads a long stream from its beginning, one reply after the
// other, has each part of the log fetched once.
func TestScanFetchesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const replies, batch = 20_000, 200
		r := newRig(t, 1)
		for range replies / batch {
			var some []record.Reply
			for range batch {
				some = append(some, part("a", "token "))
			}
			r.put(0, some...)
		}
		r.put(0, last("a", "x"))
		var fetches int
		var from, again int64
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			if f := q.(*kmsg.FetchRequest); f.MaxWaitMillis == int32(scanMaxWait.Milliseconds()) {
				at := f.Topics[0].Partitions[0].FetchOffset
				again += max(from-at, 0)
				from = at
				fetches++
			}
			return nil, nil, false
		})
		sub := r.follow(r.stream("a"), nil)
		for i := range replies {
			if e, err := next(sub); err != nil || e.Kind != KindReply || e.Cursor.Offset != int64(i) {
				t.Fatal(tell(e, err), i)
			}
		}
		expect(t, sub, "reply x @0/20000", "end replied-end")
		if fetches < 2 || fetches > 10 || again > 0 {
			t.Errorf("%d fetches for a log of %d records, %d of them over again", fetches, replies+1, again)
		}
	})
}

// A pass goes on while somebody needs it, with those who have enough aboard, and
// begins anew for one that stands before it.
func TestPassForThoseWhoNeedIt(t *testing.T) {
	h, p := lonePartition(t)
	p.lookAgain(p.log.life)
	p.found(0, 100, h.tick())
	p.scan.running = true // the test runs the passes
	fed, hungry := newReader(p, "a", 0), newReader(p, "b", 0)
	fed.read()
	hungry.read()
	stop := func(want int64, more bool) {
		t.Helper()
		if at, m := p.nextStop(); m != more || more && at != want {
			t.Fatalf("the scan goes on at %d, %v, instead of %d, %v", at, m, want, more)
		}
	}
	long := func(from int64, replies ...record.Reply) {
		f := answer(from, replies...)
		f.HighWatermark, f.Stable = 100, 100
		p.deliver(from, f, h.tick())
	}
	stop(0, true)
	long(0, part("a", "one"), part("c", "x"))
	stop(2, true) // for b
	long(2, part("b", "one"))
	stop(0, false) // both have something
	if fed.state != riding || hungry.state != riding || p.scan.at != 3 {
		t.Fatalf("states %d and %d at %d", fed.state, hungry.state, p.scan.at)
	}
	p.scan.running = true
	before := newReader(p, "c", 1)
	before.read()
	stop(1, true)
	if fed.state != idle || fed.next != 3 || len(fed.buffer) != 1 {
		t.Errorf("state %d at %d with %d put aside", fed.state, fed.next, len(fed.buffer))
	}
	for _, r := range []*reader{fed, hungry} {
		if e, out := r.read(); out != found || string(e.Reply.Body) != "one" {
			t.Errorf("outcome %d", out)
		}
		if _, out := r.read(); out != nothing || r.state != riding { // it stands further on
			t.Errorf("outcome %d, state %d", out, r.state)
		}
	}
}
