package hub

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		r.put(0, part("b", "x"), part("a", "one"))
		expect(t, sub, "reply one @0/1", "caught up")

		time.Sleep(time.Until(s.Expires.Add(expiryGrace - 15*time.Second)))
		expect(t, sub, "silence")
		time.Sleep(time.Until(s.Expires.Add(time.Second)))
		r.put(0, last("a", "too late"))
		expect(t, sub, "end expired-expired", "eof")
		if late := time.Since(s.Expires.Add(expiryGrace)); late > time.Second {
			t.Errorf("told %v late", late)
		}
	})
}

// An expired stream is expired for everyone who asks, with the cursor of any event.
func TestExpiredStreamAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		r.put(0, part("a", "one"))
		time.Sleep(time.Until(s.Expires.Add(time.Second)))
		late := r.put(0, last("a", "too late"))
		time.Sleep(expiryGrace)

		sub := r.follow(s, nil)
		expect(t, sub, "reply one @0/0")
		e, err := next(sub)
		if got := tell(e, err); got != "end expired-expired" {
			t.Fatal(got)
		}
		expect(t, r.follow(s, &e.Cursor), "eof")
		if ended, err := r.hub.Ended(t.Context(), s, e.Cursor); err != nil || !ended {
			t.Error(ended, err)
		}
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation}), "end expired-expired", "eof")
		// A record that was not pushed is nobody's cursor.
		for _, mark := range []Mark{MarkNone, MarkEnd} {
			expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Offset: late, Mark: mark}), "gap cursor", "reply one @0/0", "end expired-expired", "eof")
		}
	})
}

// Who comes after the end of a stream is told of it, never that it is still open:
// not even when the log's end becomes known while it is looked for.
func TestExpiredStreamIsNeverOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		time.Sleep(time.Until(s.Expires.Add(expiryGrace)))
		for range 100 {
			r.put(0, last("a", "too late"))
			expect(t, r.follow(s, nil), "end expired-expired", "eof")
		}
	})
}

// A reply in time is the end, however late the client comes.
func TestRepliedStreamDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		time.Sleep(time.Until(s.Expires))
		r.put(0, last("a", "just in time"))
		time.Sleep(5 * time.Minute)
		expect(t, r.follow(s, nil), "reply just in time @0/0", "end replied-end")
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Mark: MarkExpired}), "gap cursor", "reply just in time @0/0", "end replied-end")
	})
}

// While the brokers are out of reach nobody knows whether a reply is there.
func TestNoExpiryWithoutTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		r.put(0, part("a", "one"))
		expect(t, sub, "reply one @0/0")
		r.goDown()
		time.Sleep(time.Until(s.Expires.Add(time.Minute)))
		expect(t, sub, "silence")
		r.comeUp()
		expect(t, sub, "end expired-expired", "eof")
	})
}

// The broker's clock may be behind the gateway's by expiryGrace: what was in time
// by that comes, though the stream has expired by this.
func TestReplyInTimeByTheBrokersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.recreate(1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		time.Sleep(time.Until(s.Expires.Add(-9 * time.Second)))
		expect(t, sub, "silence") // until it has expired
		time.Sleep(expiryGrace - 2*time.Second)
		r.putAt(0, s.Expires, last("a", "one"))
		expect(t, sub, "reply one @0/0", "end replied-end")
	})
}

// In a topic whose times are the producers' no reply is too late by one: a worker's
// clock that is ahead lets no answered stream expire.
func TestReplyByAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, kfake.ClusterID("one that marks batches"))
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		r.putAt(0, s.Expires.Add(time.Hour), part("a", "one"))
		r.putAt(0, s.Expires.Add(time.Hour), last("a", "two"))
		want := []string{"reply one @0/0", "reply two @0/1", "end replied-end"}
		expect(t, sub, want...)
		time.Sleep(time.Until(s.Expires.Add(time.Minute)))
		expect(t, r.follow(s, nil), want...)
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Offset: 0}), "reply two @0/1", "end replied-end")

		// What that costs: an answer after the end that was told is an answer all the same.
		b := r.stream("b")
		time.Sleep(time.Until(b.Expires.Add(expiryGrace)))
		sub = r.follow(b, nil)
		e, err := next(sub)
		if got := tell(e, err); got != "end expired-expired" {
			t.Fatal(got)
		}
		r.putAt(0, time.Now(), last("b", "late"))
		expect(t, r.follow(b, nil), "reply late @0/2", "end replied-end")
		expect(t, r.follow(b, &e.Cursor), "gap cursor", "reply late @0/2", "end replied-end")
	})
}

// The timer goes by a clock that nobody sets, the expiry by one that may be set
// back meanwhile.
func TestExpiryWhenTheClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		sub.expiry.Stop()
		sub.ring() // too early by the clock that counts
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got := tell(sub.Next(ctx)); got != "end expired-expired" {
			t.Fatalf("%q", got)
		}
		if late := time.Since(s.due()); late < 0 || late > time.Second {
			t.Errorf("told %v late", late)
		}
	})
}

// That a topic was gone before the stream expired does not say that it still is.
func TestNoExpiryByATopicThatCameBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		if err := r.DeleteTopic(gatewayTopic); err != nil {
			t.Fatal(err)
		}
		expect(t, sub, "silence")
		r.goDown()
		if err := r.CreateTopic(gatewayTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * metadataTTL)
		r.put(0, last("a", "one"))
		time.Sleep(time.Until(s.Expires.Add(time.Minute)))
		expect(t, sub, "silence")
		r.comeUp()
		expect(t, sub, "gap recreated", "reply one @0/0", "end replied-end")
	})
}

// A topic that was deleted holds no reply any more, so the stream still ends.
func TestExpiryWithoutTheTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		if err := r.DeleteTopic(gatewayTopic); err != nil {
			t.Fatal(err)
		}
		expect(t, sub, "silence")
		time.Sleep(time.Until(s.Expires.Add(expiryGrace)))
		expect(t, sub, "end expired-expired", "eof")
		expect(t, r.follow(s, nil), "end expired-expired", "eof")
	})
}
