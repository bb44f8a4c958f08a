package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// An end of the log that was asked for before the floor was found may lie below
// it, and says nothing of a log that was cut off.
func TestFloorIsNewerThanTheEnd(t *testing.T) {
	h, p := lonePartition(t)
	s := Stream{ID: "a", Topic: gatewayTopic, Partitions: 1, Incarnation: p.incarnation, Issued: time.Now()}
	sub := h.Follow(s, nil)
	defer sub.Close()
	sub.resolve()
	l := sub.legs[0]
	l.byTime = true
	p.fresh(3, h.tick())
	if sub.place(l) {
		t.Fatal("placed before the floor was found")
	}
	p.located(s.Issued.Add(-issuedGrace).Truncate(time.Minute).UnixMilli(), 5)
	if sub.place(l) || len(sub.queue) > 0 {
		t.Fatalf("placed by an end that is older than the floor: %+v", sub.queue)
	}
	p.fresh(6, h.tick())
	if at, _ := l.reader.standing(); !sub.place(l) || len(sub.queue) > 0 {
		t.Fatalf("not placed at the floor but at %d: %+v", at, sub.queue)
	}
	if at, _ := l.reader.standing(); at != 5 {
		t.Errorf("placed at %d", at)
	}
}

// The broker's clock may be behind the gateway's by a minute: by that a reply may
// have been written before the stream began.
func TestReplyBeforeTheStreamByTheBrokersClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.recreate(1)
		id := placed(t, 0, 1, 1, 2)
		time.Sleep(time.Hour)
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + time.Second))) // times are rounded down to the minute
		s := r.stream(id)
		r.grow(r.client, 2)
		time.Sleep(2 * metadataTTL)
		r.putAt(1, s.Issued.Add(-time.Hour), part("other", "x"))
		r.putAt(1, s.Issued.Add(-30*time.Second), last(id, "one"))
		expect(t, r.follow(s, nil), "reply one @1/1", "end replied-end")
	})
}

// A gateway whose clock goes ahead of the broker's has issued its tokens in the
// broker's future, so that no record is that new: the stream begins at the end.
func TestFloorInTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		id := placed(t, 0, 1, 1, 2)
		s := r.stream(id)
		s.Issued = s.Issued.Add(2 * time.Hour)
		s.Expires = s.Expires.Add(2 * time.Hour)
		r.grow(r.client, 2)
		time.Sleep(2 * metadataTTL)
		r.put(1, part("other", "x"))
		sub := r.follow(s, nil)
		expect(t, sub, "caught up")
		r.put(1, last(id, "one"))
		expect(t, sub, "reply one @1/1", "end replied-end")
	})
}
