package hub

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestStreamFromItsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up", "silence")

		r.put(0, part("a", "one"), part("b", "other"), state("a", record.StateRetrying), last("a", "two"), last("a", "never"))
		expect(t, sub, "reply one @0/0", "status retrying", "reply two @0/3", "end replied-end", "eof", "eof")
	})
}

// What came before a hub was there is read from the broker.
func TestStreamFromBeforeTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		r.put(0, part("a", "below the floor"))
		s := r.stream("a")
		s.Floor = r.put(0, part("b", "other"), part("a", "one"), part("a", "two"))
		sub := r.follow(s, nil)
		expect(t, sub, "reply one @0/2", "reply two @0/3", "caught up")
		r.put(0, last("a", "three"))
		expect(t, sub, "reply three @0/4", "end replied-end", "eof")
	})
}

func TestEndsThatAreNoReply(t *testing.T) {
	for _, s := range []record.State{record.StateFailed, record.StateCancelled} {
		t.Run(string(s), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, 1)
				sub := r.follow(r.stream("a"), nil)
				r.put(0, state("a", s), last("a", "too late"))
				e, err := next(sub)
				if got := tell(e, err); got != "end "+string(s)+"-end" || e.End.Reason != "because" || e.End.Attempts != 2 {
					t.Fatalf("%q %+v", got, e.End)
				}
				expect(t, sub, "eof")
			})
		})
	}
}

// The last part of an answer in parts ends the stream, and is a reply only if
// something is in it.
func TestLastPart(t *testing.T) {
	of := func(part int, body string, more bool) record.Reply {
		return record.Reply{StreamID: "a", Status: 200, Body: []byte(body), Part: part, Attempt: 1, More: more}
	}
	for name, c := range map[string]struct {
		replies []record.Reply
		want    []string
	}{
		"empty":                 {[]record.Reply{of(1, "one", true), of(2, "", true), of(3, "", false)}, []string{"reply one @0/0", "reply  @0/1", "end replied-end"}},
		"with a body":           {[]record.Reply{of(1, "one", true), of(2, "two", false)}, []string{"reply one @0/0", "reply two @0/1", "end replied-end"}},
		"the only one":          {[]record.Reply{of(1, "", false)}, []string{"reply  @0/0", "end replied-end"}},
		"of an answer in whole": {[]record.Reply{part("a", "one"), last("a", "")}, []string{"reply one @0/0", "reply  @0/1", "end replied-end"}},
	} {
		bubble(t, name, func(t *testing.T) {
			r := newRig(t, 1)
			live := r.follow(r.stream("a"), nil)
			expect(t, live, "caught up")
			r.put(0, c.replies...)
			expect(t, live, c.want...)

			// With the id of each event the client gets what follows, and nothing after the end.
			s := r.stream("a")
			sub := r.follow(s, nil)
			for i := range c.want {
				e, err := next(sub)
				if got := tell(e, err); got != c.want[i] {
					t.Fatalf("%q instead of %q", got, c.want[i])
				}
				expect(t, r.follow(s, &e.Cursor), append(c.want[i+1:len(c.want):len(c.want)], "eof")...)
				if e.Kind == KindEnd && e.Cursor.Offset != int64(len(c.replies)-1) {
					t.Errorf("the end is at %d", e.Cursor.Offset)
				}
				if ended, err := r.hub.Ended(t.Context(), s, e.Cursor); err != nil || ended != (e.Kind == KindEnd) {
					t.Errorf("ended %v, %v", ended, err)
				}
			}
			// Also with that of the record that only ends the stream, which no event had.
			expect(t, r.follow(s, &Cursor{Incarnation: s.Incarnation, Offset: int64(len(c.replies) - 1)}), "end replied-end", "eof")
		})
	}
}

// A worker's records that are no replies are passed over, and counted.
func TestRecordsThatAreNoReplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up")
		r.putRecords(0,
			record.Record{Value: []byte("no correlation id")},
			record.Record{Headers: []record.Header{{Key: record.HeaderCorrelationID, Value: []byte("a b\x00")}}},
			state("a", "unheard-of").Record(),
			last("a", "one").Record())
		expect(t, sub, "reply one @0/3", "end replied-end")
		if n := r.hub.Stats().Dropped; n != 3 {
			t.Errorf("%d records dropped instead of 3", n)
		}
	})
}

// A client is told at once when it has seen what the log held, and does not
// wait for the fetch that the broker holds.
func TestCaughtUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		expect(t, r.follow(r.stream("a"), nil), "caught up", "silence")
		for range 20 {
			start := time.Now()
			expect(t, r.follow(r.stream("b"), nil), "caught up")
			if d := time.Since(start); d > 20*time.Millisecond {
				t.Fatalf("caught up after %v", d)
			}
			time.Sleep(37 * time.Millisecond) // virtual: so that the fetch is held at other points
		}
	})
}

// Everything that the log held when the client asked comes before caught up.
func TestCaughtUpComesAfterWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		expect(t, r.follow(r.stream("warm"), nil), "caught up")
		for range 50 {
			r.put(0, part("a", "x"))
			sub := r.hub.Follow(r.stream("a"), nil)
			seen := 0
			for {
				e, err := next(sub)
				if err != nil {
					t.Fatal(err)
				}
				if e.Kind == KindCaughtUp {
					break
				}
				seen++
			}
			sub.Close()
			if want := int(r.hub.positionOf(0)); seen != want {
				t.Fatalf("caught up after %d of %d replies", seen, want)
			}
		}
	})
}

// positionOf tells where the tail of a partition stands.
func (h *Hub) positionOf(index int32) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, _ := h.topics[gatewayTopic].partitions[index].position(time.Now())
	return at.offset
}

func TestManyFollowOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		var subs []*Subscription
		for range 20 {
			subs = append(subs, r.follow(s, nil))
		}
		for _, sub := range subs {
			expect(t, sub, "caught up")
		}
		subs[0].Close()
		subs[7].Close()
		subs[19].Close()
		r.put(0, last("a", "one"))
		for i, sub := range subs {
			if i == 0 || i == 7 || i == 19 {
				expect(t, sub, ErrClosed.Error())
				continue
			}
			expect(t, sub, "reply one @0/0", "end replied-end", "eof")
		}
	})
}

func TestNextCanBeCalledAgainAfterItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := sub.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		r.put(0, last("a", "one"))
		expect(t, sub, "reply one @0/0", "end replied-end", "eof")
	})
}

func TestCloseEndsSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up")
		ended := make(chan error)
		go func() {
			_, err := sub.Next(context.Background())
			ended <- err
		}()
		synctest.Wait()
		r.hub.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
		expect(t, r.follow(Stream{ID: "late", Topic: gatewayTopic}, nil), ErrClosed.Error())
		if n := r.hub.Stats().Subscriptions; n != 2 {
			t.Fatalf("%d subscriptions open instead of the 2 that nobody closed", n)
		}
	})
}

// The replies of streams whose token names another topic are found there, and
// the topic is forgotten when nobody wants it any more.
func TestStreamOfAnotherTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		h := New(Config{Broker: r.client, Topic: "osmosis.new"})
		defer h.Close()
		sub := h.Follow(r.stream("a"), nil)
		r.put(0, last("a", "one"))
		expect(t, sub, "reply one @0/0", "end replied-end")
		sub.Close()
		time.Sleep(tailLinger + 3*topicRefresh)
		synctest.Wait()
		if got := h.Stats(); got.Tails != 0 || got.Subscriptions != 0 {
			t.Errorf("%+v", got)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.topics) != 0 {
			t.Errorf("%d topics left", len(h.topics))
		}
	})
}

// A tail goes on for a minute after the last stream has left.
func TestTailLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up")
		sub.Close()
		time.Sleep(tailLinger - topicRefresh)
		if n := r.hub.Stats().Tails; n != 1 {
			t.Fatalf("%d tails", n)
		}
		time.Sleep(3 * topicRefresh)
		if n := r.hub.Stats().Tails; n != 0 {
			t.Fatalf("%d tails", n)
		}
		r.put(0, last("a", "one"))
		expect(t, r.follow(r.stream("a"), nil), "reply one @0/0", "end replied-end")
	})
}
