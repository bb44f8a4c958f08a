package hub

import (
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// TestResume sends clients back with all kinds of cursors: to a hub that has the
// records in its window, and to one that has just started.
func TestResume(t *testing.T) {
	const offset = 1 // of the stream's first record
	all := []string{"reply one @0/1", "reply two @0/3", "reply three @0/4", "end replied-end", "eof"}
	anew := append([]string{"gap cursor"}, all...)
	for _, c := range []struct {
		name string
		from Cursor // its incarnation is added
		want []string
	}{
		{"after the first", Cursor{Offset: 1}, all[1:]},
		{"after the second", Cursor{Offset: 3}, all[2:]},
		{"after the last", Cursor{Offset: 4}, all[3:]},
		{"after the end", Cursor{Offset: 4, Mark: MarkEnd}, all[4:]},
		{"after an end that is none", Cursor{Offset: 3, Mark: MarkEnd}, anew},
		{"at another stream's record", Cursor{Offset: 2}, anew},
		{"at another stream's end", Cursor{Offset: 2, Mark: MarkEnd}, anew},
		{"below the floor", Cursor{Offset: 0}, anew},
		{"in another partition", Cursor{Offset: 1, Partition: 1}, anew},
		{"in no partition", Cursor{Offset: 1, Partition: 1 << 30}, anew},
		{"from the future", Cursor{Offset: 6}, anew},
		{"from the far future", Cursor{Offset: 1<<63 - 1, Mark: MarkEnd}, anew},
		{"expired though it is not", Cursor{Offset: 4, Mark: MarkExpired}, anew},
		{"of another life of the topic", Cursor{Offset: 1, Incarnation: 7}, anew},
	} {
		for _, warm := range []bool{false, true} {
			name := "behind the window, " + c.name
			if warm {
				name = "in the window, " + c.name
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, 2)
					if warm {
						expect(t, r.follow(r.stream("warm"), nil), "caught up")
					}
					r.put(0, part("b", "zero"))
					s := r.stream("a")
					s.Floor = offset
					r.put(0, part("a", "one"), last("b", "end"), part("a", "two"), last("a", "three"), last("a", "ignored"))
					from := c.from
					from.Incarnation ^= s.Incarnation
					expect(t, r.follow(s, &from), c.want...)

					ended, err := r.hub.Ended(t.Context(), s, from)
					if want := from.Mark != MarkNone && c.want[0] == "eof"; err != nil || ended != want {
						t.Errorf("ended %v (%v) instead of %v", ended, err, want)
					}
				})
			})
		}
	}
}

// A client that goes through its stream one event at a time, with a new
// connection and a new hub after each, sees each event once.
func TestResumeAfterEachEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.put(0, part("a", "one"), part("b", "x"), part("a", "two"), part("a", "three"), last("a", "four"))
		s := r.stream("a")
		var from *Cursor
		for _, want := range []string{"reply one @0/0", "reply two @0/2", "reply three @0/3", "reply four @0/4", "end replied-end"} {
			h := r.newHub(Config{})
			sub := h.Follow(s, from)
			e, err := next(sub)
			if got := tell(e, err); got != want {
				t.Fatalf("%q instead of %q", got, want)
			}
			from = &e.Cursor
			sub.Close()
			h.Close()
		}
		if _, err := next(r.follow(s, from)); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}

func TestRetentionGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		expect(t, r.follow(r.stream("warm"), nil), "caught up")
		r.put(0, part("a", "one"), part("a", "two"), part("b", "one"), part("a", "three"), last("b", "two"), part("c", "x"))
		if err := r.DeleteRecords(gatewayTopic, 0, 2); err != nil {
			t.Fatal(err)
		}
		r.hub = r.newHub(Config{}) // what the first had in its window is not lost to it

		// The end is not there: the gap comes before what is left.
		sub := r.follow(r.stream("a"), nil)
		e, err := next(sub)
		if got := tell(e, err); got != "gap retention" {
			t.Fatal(got)
		}
		incarnation := r.incarnation()
		if from, to := (Cursor{Incarnation: incarnation}).String(), (Cursor{Incarnation: incarnation, Offset: 2}).String(); e.Gap.From != from || e.Gap.To != to {
			t.Errorf("%+v", e.Gap)
		}
		expect(t, sub, "reply three @0/3", "caught up")
		r.put(0, last("a", "four"))
		expect(t, sub, "reply four @0/6", "end replied-end")

		// The end is there: nothing that the client waits for was lost.
		expect(t, r.follow(r.stream("b"), nil), "reply one @0/2", "reply two @0/4", "end replied-end", "eof")

		// A cursor that is gone counts like a floor.
		s := r.stream("c")
		expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Offset: 1}), "gap retention", "reply x @0/5", "caught up")

		// A stream of which nothing is there.
		expect(t, r.follow(r.stream("d"), nil), "gap retention", "caught up")
	})
}

// Retention that overtakes a client that was reading is told as well. What a
// scan has put aside for it is not lost by that, as long as there is memory.
func TestRetentionOvertakesTheReader(t *testing.T) {
	for _, slow := range []bool{false, true} {
		bubble(t, fmt.Sprintf("slow %v", slow), func(t *testing.T) {
			r := newRig(t, 1)
			h := r.newHub(Config{WindowBytes: 2000})
			sub := h.Follow(r.stream("a"), nil)
			defer sub.Close()
			expect(t, sub, "caught up")
			for range 100 {
				r.put(0, part("a", "x"))
			}
			time.Sleep(2 * tailMaxWait) // the tail has read them all, and evicted most
			expect(t, sub, "reply x @0/0")
			if slow {
				time.Sleep(2 * tailMaxWait)
			}
			if err := r.DeleteRecords(gatewayTopic, 0, 90); err != nil {
				t.Fatal(err)
			}
			if slow {
				time.Sleep(2 * tailMaxWait)
				expect(t, sub, "gap retention")
			}
			for offset := map[bool]int{false: 1, true: 90}[slow]; offset < 100; offset++ {
				expect(t, sub, fmt.Sprintf("reply x @0/%d", offset))
			}
		})
	}
}

// A gap that is held back comes when more was found than is kept aside.
func TestRetentionGapBeforeManyReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		for range 3 * maxPassed {
			r.put(0, part("a", "x"))
		}
		r.put(0, last("a", "x"))
		if err := r.DeleteRecords(gatewayTopic, 0, 1); err != nil {
			t.Fatal(err)
		}
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "gap retention")
		for offset := int64(1); offset <= 3*maxPassed; offset++ {
			e, err := next(sub)
			if err != nil || e.Kind != KindReply || e.Cursor.Offset != offset {
				t.Fatal(tell(e, err), offset)
			}
		}
		expect(t, sub, "end replied-end")
	})
}

// The floor in a token may be ahead of what this gateway has read.
func TestFloorAheadOfTheTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		expect(t, r.follow(r.stream("warm"), nil), "caught up")
		s := r.stream("a")
		s.Floor = r.put(0, part("b", "x"), part("a", "below")) + 2
		sub := r.follow(s, nil) // before the tail has them
		r.put(0, last("a", "one"))
		expect(t, sub, "reply one @0/2", "end replied-end")
	})
}

func TestFloorAboveTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		r.put(0, part("a", "one"))
		s.Floor = 5
		sub := r.follow(s, nil)
		expect(t, sub, "gap truncated", "reply one @0/0", "caught up")
		r.put(0, last("a", "two"))
		expect(t, sub, "reply two @0/1", "end replied-end")
	})
}
