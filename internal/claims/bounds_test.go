package claims

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// The log's clock may be a minute behind the gateway's: a claim that it took before
// the end of the one that it lost against still meets that one.
func TestEndedClaimsAreKeptForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{})
		defer b.Close()
		b.adopt(broker.Topic{Name: Topic, Leaders: []int32{0}})
		b.start(map[int32]int64{0: 0})
		next := int64(0)
		// take has the log answer with a claim that it took at some time, or none.
		take := func(id string, at time.Time, behind int64) {
			f := broker.Fetched{Next: next}
			if id != "" {
				c := claim{marks: []Mark{mark('k', 'a')}, stream: stream(id), until: at.Add(window).UnixMilli(), patience: 1000}
				f.Records = []broker.Record{{Record: c.record(), Offset: next, Time: at}}
				f.Next++
			}
			next, f.HighWatermark = f.Next, f.Next+behind
			b.take(&f, time.Now())
		}
		holds := func(when, want string) {
			t.Helper()
			got := ""
			if e := b.look([]Mark{mark('k', 'a')}).entry; e != nil {
				got = e.stream.ID
			}
			if got != want {
				t.Errorf("%s: the claim of %q, want that of %q", when, got, want)
			}
		}
		take("s", time.Now(), 0)
		end := time.Now().Add(window)
		pass(window + 59*time.Second)
		take("", time.Time{}, 0)
		holds("59 seconds after its end", "s")
		take("late", end.Add(-time.Millisecond), 0)
		holds("after a claim that the log took before", "s")
		// Longer if not all is read: a claim may still come to it.
		pass(2 * time.Second)
		take("", time.Time{}, 1)
		holds("before all is read", "s")
		take("later", end.Add(-time.Millisecond), 1)
		holds("before all is read", "s")
		take("", time.Time{}, 0)
		holds("when all is read", "")
	})
}

// The last place is taken by the claim that fits; beyond it nobody writes one, and
// as long as one that did not fit may be live, no unknown key is free.
func TestBoundOfTheBook(t *testing.T) {
	if b := New(Config{}); b.config.Max != 1_000_000 || b.table.max != 1_000_000 {
		t.Errorf("%d and %d claims are kept, and the docs say a million", b.config.Max, b.table.max)
	}
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{Max: 1})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		free := func(when string, want error) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			end := r.ends()
			c := Claim{Marks: []Mark{mark('y', 'a')}, Place: []byte("y"), Stream: stream("t"), Until: time.Now().Add(time.Second)}
			if _, err := b.Claim(ctx, c); !errors.Is(err, want) || want != nil && r.ends() != end {
				t.Errorf("%s: %v, want %v; %d records were written", when, err, want, r.ends()-end)
			}
		}
		free("with one of one", ErrFull)
		for i, until := range []time.Duration{3 * window, 2 * window} { // the longer one first
			other := claim{marks: []Mark{mark(byte(i), 'a')}, stream: stream("o"), until: time.Now().Add(until).UnixMilli(), patience: 1000}
			r.put(other.record())
		}
		b.expect(t, "u", 'a', "stream s")
		pass(window + 2*time.Minute)
		if live := b.Live(); live != 0 {
			t.Errorf("%d claims", live)
		}
		free("with room, while others that had none are live", ErrFull)
		pass(window)
		free("with room, while the longer of them is live", ErrFull)
		pass(window)
		free("when they have ended", nil)
	})
}

// A claim that has lost a race waits for the winner's note, and one that loses
// again and again gives up.
func TestLostRaces(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.closed(Config{})
		races := 0
		var after func(winner claim)
		// Another gateway's claim always comes first.
		b.config.Produce = func(ctx context.Context, place []byte, rec record.Record) (Position, error) {
			if rec.Value[1] != kindClaim {
				return r.produce(ctx, place, rec)
			}
			races++
			winner := claim{marks: []Mark{mark('k', 'a')}, stream: stream(fmt.Sprintf("w%d", races)), until: time.Now().Add(window).UnixMilli(), patience: 10_000}
			r.put(winner.record())
			at, err := r.produce(ctx, place, rec)
			after(winner)
			return at, err
		}
		b.Start(broker.TopicSpec{Name: Topic, Partitions: 2, Config: map[string]string{"message.timestamp.type": "LogAppendTime"}}, true)
		pass(5 * time.Second)
		after = func(c claim) { r.put(revoke{holder: c.stream.ID}.record(c.marks[0].Key)) }
		b.expect(t, "s", 'a', "pending")
		if races != 16 {
			t.Errorf("%d claims were written, want 16", races)
		}
		races = 100
		after = func(c claim) {
			time.AfterFunc(3*time.Second, func() { r.put(note{stream: c.stream.ID}.record(c.marks[0].Key)) })
		}
		b.expect(t, "t", 'a', "stream w101")
	})
}
