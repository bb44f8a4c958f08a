package hub

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// answer makes what a broker would answer: the replies from an offset on.
func answer(from int64, replies ...record.Reply) broker.Fetched {
	f := broker.Fetched{Next: from + int64(len(replies))}
	f.HighWatermark, f.Stable = f.Next, f.Next
	for i, reply := range replies {
		f.Records = append(f.Records, broker.Record{Record: reply.Record(), Offset: from + int64(i)})
	}
	return f
}

func newReader(p *partition, id string, at int64) *reader {
	r := &reader{partition: p, id: id, bell: newBell()}
	r.attach()
	r.seek(at)
	return r
}

// When a partition goes over to another tail, the answer to the first one's last
// fetch may come after the other's.
func TestAnswerThatIsTooLate(t *testing.T) {
	h, p := lonePartition(t)
	from, _ := p.position(time.Now())
	p.take(from, answer(0, part("a", "one"), part("a", "two")), h.tick())
	p.take(from, answer(0, part("a", "one"), part("a", "two"), part("a", "three")), h.tick())
	if now, _ := p.position(time.Now()); now.offset != 2 || len(p.window.entries) != 2 {
		t.Errorf("at %d with %d records", now.offset, len(p.window.entries))
	}
	p.lookAgain(from.life)
	p.found(0, 0, h.tick())
	p.take(from, answer(0, part("a", "one")), h.tick())
	if now, _ := p.position(time.Now()); now.offset != 0 {
		t.Errorf("an answer from before the log was looked at again was taken up to %d", now.offset)
	}
}

// Answers overtake each other. A high watermark that is lower than what is known
// is news only if it was asked for after that.
func TestHighWatermarkThatIsTooLate(t *testing.T) {
	h, p := lonePartition(t)
	early := h.tick()
	held := h.tick() // a fetch that the broker holds
	from, _ := p.position(time.Now())
	p.fresh(5, early)
	p.take(from, answer(0, part("a", "one"), part("a", "two"), part("a", "three"), part("a", "four"), part("a", "five"), part("a", "six")), held)
	between := h.tick()
	p.fresh(6, h.tick())
	p.fresh(5, between)
	if p.log.high.at != 6 {
		t.Fatalf("high watermark %d instead of 6", p.log.high.at)
	}
	p.fresh(4, h.tick())
	if p.log.high.at != 4 {
		t.Fatalf("high watermark %d instead of 4: the log was cut off", p.log.high.at)
	}
}

// What a scan puts aside between a look and the next has not been seen.
func TestStandingBeforeWhatWasPutAside(t *testing.T) {
	h, p := lonePartition(t)
	p.lookAgain(p.log.life)
	p.found(0, 10, h.tick())
	r := newReader(p, "a", 3)
	p.scan.running = true // the test runs the passes
	if _, out := r.read(); out != nothing || r.state != waiting {
		t.Fatal("the reader does not wait for a scan")
	}
	if at, more := p.nextStop(); at != 3 || !more {
		t.Fatalf("the scan begins at %d, %v", at, more)
	}
	p.deliver(3, answer(3, part("b", "x"), part("a", "one"), part("a", "two")), h.tick())
	if at, _ := r.standing(); at != 4 {
		t.Errorf("standing at %d instead of 4", at)
	}
}

// A reader that comes between two passes is served by the next.
func TestReaderBetweenPasses(t *testing.T) {
	h, p := lonePartition(t)
	p.lookAgain(p.log.life)
	p.found(0, 10, h.tick())
	p.scan.running = true // the test runs the passes
	first := newReader(p, "a", 3)
	first.read()
	p.nextStop()
	p.deliver(3, answer(3, make([]record.Reply, 7)...), h.tick())
	if at, more := p.nextStop(); more || first.state != idle || first.next != 10 {
		t.Fatalf("the pass goes on at %d, its reader has state %d at %d", at, first.state, first.next)
	}
	p.scan.running = true
	p.mu.Lock()
	p.window.start, p.window.next, p.log.stable.at = 20, 20, 20 // the window moves on
	p.mu.Unlock()
	second := newReader(p, "a", 12)
	second.read()
	if _, more := p.nextStop(); !more || second.state != riding || p.scan.at != 12 {
		t.Errorf("state %d, pass at %d", second.state, p.scan.at)
	}
}

// A batch that no reader will ever take does not stop the partition; any other
// error does, whatever offset comes with it.
func TestBatchThatIsPassedOver(t *testing.T) {
	h, p := lonePartition(t)
	reader := &tail{hub: h, changed: make(chan struct{}, 1), probes: make(chan struct{}, 1)}
	for _, c := range []struct {
		err  error
		want int64
	}{{broker.ErrBatchTooLarge, 5}, {errors.New("garbled"), 5}, {broker.ErrBatchTooLarge, 10}} {
		p.pause(0)
		from, _ := p.position(time.Now())
		got := answer(from.offset, make([]record.Reply, 5)...)
		got.Topic, got.Records, got.Err = gatewayTopic, nil, fmt.Errorf("decode records: %w", c.err)
		reader.process([]following{{p, from}}, &got, h.tick())
		if now, _ := p.position(time.Now()); now.offset != c.want {
			t.Fatalf("after %v at %d instead of %d", got.Err, now.offset, c.want)
		}
	}
	from, _ := p.position(time.Now())
	p.take(from, answer(from.offset, last("a", "one")), h.tick())
	expect(t, h.Follow(Stream{ID: "a", Topic: gatewayTopic, Partitions: 1, Incarnation: p.incarnation}, nil), "reply one @0/10", "end replied-end")
}

// A reply touches nobody but the stream that it is for, however many are open:
// no other is woken, and it costs no more memory.
func TestReplyTouchesNobodyElse(t *testing.T) {
	const many, mine = 2000, 7
	cost := func(open int) float64 {
		h, p := lonePartition(t)
		subs := crowdOf(t, p, open)
		allocations := testing.AllocsPerRun(100, func() {
			from, _ := p.position(time.Now())
			p.take(from, answer(from.offset, part(subs[mine].stream.ID, "one")), h.tick())
			if got := tell(next(subs[mine])); got != fmt.Sprintf("reply one @0/%d", from.offset) {
				t.Errorf("%q", got)
			}
		})
		woken := 0
		for i, sub := range subs {
			if i != mine && len(sub.bell.wish) > 0 {
				woken++
			}
			sub.Close()
		}
		if woken > 0 {
			t.Errorf("%d of %d streams were woken", woken, open)
		}
		return allocations
	}
	if few, more := cost(10), cost(many); more > few+1 {
		t.Errorf("%v allocations with %d streams open, %v with 10", more, many, few)
	}
}

// A small reply must not keep the whole answer in memory that it came in.
func TestEntryOwnsItsBody(t *testing.T) {
	_, p := lonePartition(t)
	rec := part("a", "one").Record()
	e := p.entry(broker.Record{Record: rec})
	copy(rec.Value, "xxx")
	if got := string(e.Reply.Body); got != "one" {
		t.Errorf("%q", got)
	}
}

// What was read is decided, also by an answer that was overtaken by a later one:
// a scan that believed otherwise would stand still before what the window has dropped.
func TestDecidedByWhatWasRead(t *testing.T) {
	h, p := lonePartition(t)
	early := h.tick()
	from, _ := p.position(time.Now())
	p.mu.Lock()
	p.settle(0, broker.Fetched{}, h.tick()) // a scan asked later and was told earlier
	p.mu.Unlock()
	p.take(from, answer(0, part("a", "one"), part("a", "two")), early)
	if p.log.stable.at != 2 {
		t.Errorf("decided up to %d instead of 2", p.log.stable.at)
	}
}

// A reader that waits for a scan is let go when the window is moved back to
// before it, so that it finds out.
func TestWindowIsMovedBack(t *testing.T) {
	h, p := lonePartition(t)
	p.lookAgain(p.log.life)
	p.found(0, 10, h.tick())
	p.scan.running = true // the test runs the passes
	r := newReader(p, "a", 8)
	if _, out := r.read(); out != nothing || r.state != waiting {
		t.Fatalf("outcome %d, state %d", out, r.state)
	}
	p.lookAgain(p.log.life)
	p.found(0, 5, h.tick())
	if _, more := p.nextStop(); more || r.state != idle || len(r.bell.wish) == 0 {
		t.Fatalf("goes on %v, state %d, %d wakes", more, r.state, len(r.bell.wish))
	}
	if _, out := r.read(); out != beyond {
		t.Errorf("outcome %d", out)
	}
}
