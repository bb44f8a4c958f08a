package hub

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Parts that lie in the log twice, or come late from a try that another has
// taken the place of, are given once or not at all: to a client that stays, and
// to one that comes back after each event, with any window.
func TestRepeatedParts(t *testing.T) {
	of := func(attempt, part int) record.Reply {
		return record.Reply{StreamID: "a", Status: 200, Body: fmt.Appendf(nil, "%d.%d", attempt, part), More: true, Attempt: attempt, Part: part}
	}
	ends := func(r record.Reply) record.Reply {
		r.More = false
		return r
	}
	whole := part("a", "whole")
	progress := record.Reply{StreamID: "a", State: record.StateDelivering, Body: []byte("{}")}
	for name, c := range map[string]struct {
		log  []record.Reply
		want []string
	}{
		"one after the other":      {[]record.Reply{of(1, 1), of(1, 2), ends(of(1, 3))}, []string{"1.1@0", "1.2@1", "1.3@2"}},
		"twice at once":            {[]record.Reply{of(1, 1), of(1, 1), ends(of(1, 2))}, []string{"1.1@0", "1.2@2"}},
		"twice, others between":    {[]record.Reply{of(1, 1), of(1, 2), of(1, 3), of(1, 1), of(1, 2), of(1, 3), of(1, 4), ends(of(1, 5))}, []string{"1.1@0", "1.2@1", "1.3@2", "1.4@6", "1.5@7"}},
		"the first of them again":  {[]record.Reply{of(1, 1), of(1, 1), of(1, 1), ends(of(1, 2))}, []string{"1.1@0", "1.2@3"}},
		"a part that was lost":     {[]record.Reply{of(1, 1), of(1, 3), of(1, 2), ends(of(1, 4))}, []string{"1.1@0", "1.3@1", "1.4@3"}},
		"another try":              {[]record.Reply{of(1, 1), of(1, 2), of(2, 1), ends(of(2, 2))}, []string{"1.1@0", "1.2@1", "2.1@2", "2.2@3"}},
		"late from another try":    {[]record.Reply{of(1, 1), of(2, 1), of(1, 2), ends(of(2, 2))}, []string{"1.1@0", "2.1@1", "2.2@3"}},
		"an end that comes late":   {[]record.Reply{of(2, 1), ends(of(1, 3)), of(2, 2)}, []string{"2.1@0"}},
		"whole answers":            {[]record.Reply{whole, whole, ends(whole)}, []string{"whole@0", "whole@1", "whole@2"}},
		"a whole one in between":   {[]record.Reply{of(1, 2), whole, of(1, 1), ends(of(1, 2))}, []string{"1.2@0", "whole@1", "1.1@2", "1.2@3"}},
		"with progress in between": {[]record.Reply{of(1, 1), progress, of(1, 1), ends(of(1, 2))}, []string{"1.1@0", "1.2@3"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 1)
				s := r.stream("a")
				warm := r.follow(s, nil) // sees them come
				expect(t, warm, "caught up")
				for _, reply := range c.log {
					r.put(0, reply)
				}
				wantParts(t, warm, c.want)
				var from *Cursor
				for given := 0; ; given++ {
					for what, h := range map[string]*Hub{"window": r.hub, "log": r.newHub(Config{})} {
						sub := h.Follow(s, from)
						wantParts(t, sub, c.want[given:])
						sub.Close()
						if what == "log" {
							h.Close()
						}
					}
					if given == len(c.want) {
						break
					}
					sub := r.hub.Follow(s, from)
					e := nextReply(t, sub)
					from = &e.Cursor
					sub.Close()
				}
			})
		})
	}
}

// A client that is told that the log lost records gets everything again, also
// the parts that it has seen.
func TestRepeatedPartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		one, two := part("a", "one"), part("a", "two")
		one.Attempt, one.Part, two.Attempt, two.Part = 1, 1, 1, 2
		expect(t, sub, "caught up")
		r.put(0, one, two)
		expect(t, sub, "reply one @0/0", "reply two @0/1")
		r.cut(1)
		time.Sleep(2 * tailMaxWait)
		r.put(0, two)
		expect(t, sub, "gap truncated", "reply one @0/0", "reply two @0/1")
	})
}

// nextReply gives the next reply, passing over what is none; nil at the end.
func nextReply(t *testing.T, sub *Subscription) *Event {
	t.Helper()
	for {
		e, err := next(sub)
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Kind == KindReply:
			return &e
		case e.Kind == KindEnd:
			return nil
		}
	}
}

// wantParts reads all replies, as body@offset, up to the end.
func wantParts(t *testing.T, sub *Subscription, want []string) {
	t.Helper()
	for _, w := range want {
		e := nextReply(t, sub)
		if e == nil {
			t.Fatalf("the end instead of %q", w)
		}
		if got := fmt.Sprintf("%s@%d", e.Entry.Reply.Body, e.Cursor.Offset); got != w {
			t.Fatalf("%q instead of %q", got, w)
		}
	}
	if e := nextReply(t, sub); e != nil {
		t.Fatalf("%q after the last", e.Entry.Reply.Body)
	}
}
