package claims

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// One is queued, and the others get its stream, with all that was claimed.
func TestClaim(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		one, two := r.book(Config{}), r.book(Config{})
		pass(5 * time.Second)
		first := one.expect(t, "s", 'a', "turn of s")
		first.note(t, 42)
		for _, b := range []book{one, two} {
			v := b.expect(t, "t", 'a', "stream s")
			if v.Request != (Position{Partition: 1, Offset: 42, Incarnation: 7}) || v.Stream.Floor != 70_000 || v.Stream.Topic != "osmosis.replies" ||
				v.Stream.Partition != 3 || v.Stream.Partitions != 32 || v.Stream.Incarnation != 0xfeedbeef || v.Stream.Expires.Sub(v.Stream.Issued) != time.Hour {
				t.Errorf("%+v", v)
			}
			b.expect(t, "u", 'b', "reused")
		}
		if live := one.Live(); live != 1 {
			t.Errorf("%d claims", live)
		}
	})
}

// A request that comes before the claims have been read waits for that, as long
// as it has time.
func TestClaimWaitsUntilClaimsAreRead(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.book(Config{}).expect(t, "s", 'a', "turn of s").note(t, 1)
		began := time.Now()
		r.book(Config{}).expect(t, "t", 'a', "stream s")
		if took := time.Since(began); took > time.Second {
			t.Errorf("it waited %s for a broker that answers", took)
		}
		r.cut()
		late := r.book(Config{})
		began = time.Now()
		late.expect(t, "u", 'a', "not read")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it waited %s of its ten seconds", took)
		}
		time.AfterFunc(5*time.Second, r.mend)
		late.expect(t, "v", 'a', "stream s")
		// A book that is closed meanwhile keeps nobody.
		r.cut()
		closed := r.book(Config{})
		began = time.Now()
		time.AfterFunc(time.Second, closed.Close)
		closed.expect(t, "w", 'a', "not read")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it waited %s for a closed book", took)
		}
	})
}

// Whether a key was claimed anywhere can be known without a claim.
func TestKnown(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		known := func(want string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			got, err := b.Known(ctx, []Mark{{Key: [16]byte{'k'}}}, []byte("k"))
			if said := fmt.Sprint(got, " ", errors.Is(err, ErrNotRead)); said != want {
				t.Errorf("%s, want %s: %v", said, want, err)
			}
		}
		known("false false")
		if got := r.ends(); got != 0 {
			t.Errorf("%d records were written", got)
		}
		// Another gateway's claim comes just before this one's next fetch is answered.
		fetches := make(chan struct{}, 1)
		r.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			r.SleepControl(func() {
				select {
				case fetches <- struct{}{}:
				default:
				}
				<-time.After(time.Second)
			})
			return nil, nil, false
		})
		<-fetches
		other := claim{marks: []Mark{mark('k', 'a')}, stream: stream("s"), until: time.Now().Add(window).UnixMilli(), patience: 1000}
		r.put(other.record())
		known("true false")
		pass(window + time.Second)
		known("false false")
		other.until = time.Now().Add(window).UnixMilli()
		r.put(other.record())
		pass(5 * time.Second)
		r.cut()
		known("true false") // it has read it, and needs nobody
		pass(window)
		known("false true")
	})
}

// A repeat waits for the note, and gets the stream.
func TestClaimWaitsForTheNote(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		one, two := r.book(Config{}), r.book(Config{})
		pass(5 * time.Second)
		turn := one.expect(t, "s", 'a', "turn of s")
		var waiting sync.WaitGroup
		for id, b := range map[string]book{"t": one, "u": two} {
			waiting.Go(func() {
				if _, got := b.ask(id, 'a'); got != "stream s" {
					t.Error(got)
				}
			})
		}
		pass(3 * time.Second)
		began := time.Now()
		turn.note(t, 9)
		waiting.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("they waited %s after the note", took)
		}
	})
}

// A revocation lets one of those in that wait, and the others follow that one.
func TestClaimWaitsForARevocation(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		one, two := r.book(Config{}), r.book(Config{})
		pass(5 * time.Second)
		turn := one.expect(t, "s", 'a', "turn of s")
		var waiting sync.WaitGroup
		var mu sync.Mutex
		came := make(map[string]int)
		for i := range 10 {
			b := []book{one, two}[i%2]
			waiting.Go(func() {
				v, got := b.ask(fmt.Sprintf("t%d", i), 'a')
				if v.Turn != nil {
					v.note(t, 1)
				}
				mu.Lock()
				defer mu.Unlock()
				came[v.Stream.ID]++
				came[strings.Fields(got)[0]]++
			})
		}
		pass(3 * time.Second)
		began := time.Now()
		if err := turn.Turn.Revoke(t.Context()); err != nil {
			t.Fatal(err)
		}
		waiting.Wait()
		if took := time.Since(began); took > time.Second || len(came) != 3 || came["turn"] != 1 || came["stream"] != 9 {
			t.Errorf("after %s: %v", took, came)
		}
	})
}

// Nobody waits longer than its own time; who waited that long does not take the
// claim up, and the next does.
func TestClaimIsTakenUp(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s") // and dies
		began := time.Now()
		b.expect(t, "t", 'a', "pending")
		if took := time.Since(began); took < 9*time.Second || took > 10*time.Second {
			t.Errorf("after %s", took)
		}
		pass(time.Second)
		second := b.expect(t, "u", 'a', "turn of s")
		// It has its own time. One that still has enough afterwards is next.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began = time.Now()
		third, got := b.askWithin(ctx, "v", 'a')
		if took := time.Since(began); got != "turn of s" || took < 9*time.Second || took > 11*time.Second {
			t.Errorf("%s after %s", got, took)
		}
		third.note(t, 5)
		if err := second.Turn.Revoke(t.Context()); err != nil { // too late to say so
			t.Fatal(err)
		}
		pass(time.Second)
		b.expect(t, "w", 'a', "stream s")
	})
}

// A new gateway knows what was claimed before it came.
func TestClaimsAreReadAtTheStart(t *testing.T) {
	rigged(t, 3, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 3)
		b.Close()
		r.put(note{stream: "foreign"}.record([16]byte{}))
		rec := revoke{holder: "s"}.record([16]byte{'k'})
		rec.Value = []byte("none of ours")
		r.put(rec)
		late := r.book(Config{})
		pass(5 * time.Second)
		late.expect(t, "t", 'a', "stream s")
	})
}

// With as many live claims as are kept, a key that is not known is no free key.
func TestBookIsBounded(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{Max: 1})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		other := Claim{Marks: []Mark{mark('x', 'a')}, Place: []byte("k"), Stream: stream("t"), Until: time.Now().Add(window)}
		claim := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := b.Claim(ctx, other)
			return err
		}
		if err := claim(); err == nil || err.Error() != ErrFull.Error() {
			t.Errorf("%v", err)
		}
		b.expect(t, "u", 'a', "stream s") // what is known is known
		pass(window + 2*time.Minute)
		other.Until = time.Now().Add(window)
		if err := claim(); err != nil {
			t.Errorf("after the window: %v", err)
		}
	})
}

// A closed book keeps nobody waiting.
func TestCloseEndsWaiting(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s")
		began := time.Now()
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, got := b.ask("t", 'a'); got != "pending" {
				t.Error(got)
			}
		})
		pass(time.Second)
		b.Close()
		waiting.Wait()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it waited %s", took)
		}
		b.Start(broker.TopicSpec{}, false) // too late, and harmless
		New(Config{Broker: b.config.Broker}).Close()
	})
}
