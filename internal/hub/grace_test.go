package hub

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A stream is told to have expired five seconds after its expiry, and not before:
// by so much the clocks of a gateway and of the log may differ. What the log took
// in time is given until then.
func TestExpiredIsToldFiveSecondsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s, other := r.stream("a"), r.stream("b")
		sub, answered := r.follow(s, nil), r.follow(other, nil)
		expect(t, sub, "caught up")
		expect(t, answered, "caught up")
		time.Sleep(time.Until(s.Expires))
		r.put(0, last("b", "in time"))
		expect(t, answered, "reply in time @0/0", "end replied-end")

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if got := tell(sub.Next(ctx)); got != "end expired-expired" {
			t.Fatalf("%q", got)
		}
		if late := time.Since(s.Expires); late < 5*time.Second || late > 5500*time.Millisecond {
			t.Errorf("told %s after the expiry, want 5s", late)
		}
	})
}

// A partition that is nobody's home is read for a minute after its last stream has
// left, and for no more than the next look at the topic longer.
func TestTailLingersAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up")
		sub.Close()
		time.Sleep(59 * time.Second)
		if n := r.hub.Stats().Tails; n != 1 {
			t.Errorf("after 59s: %d tails, want 1", n)
		}
		time.Sleep(12 * time.Second)
		if n := r.hub.Stats().Tails; n != 0 {
			t.Errorf("after 71s: %d tails, want none", n)
		}
	})
}

// Positions are committed every five seconds, so that tools that show a group's
// lag see this one alive.
func TestPositionsAreCommittedEveryFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newGatewayCluster(t)
		if err := c.CreateTopic(gatewayTopic, 2, nil); err != nil {
			t.Fatal(err)
		}
		g := c.start(false)
		g.commit(map[int32]int64{0: 5, 1: 7})
		pass(time.Minute)
		var commits atomic.Int64
		c.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			commits.Add(1)
			return nil, nil, false
		})
		pass(time.Minute)
		if n := commits.Load(); n < 11 || n > 13 {
			t.Errorf("%d commits in a minute, want 12", n)
		}
	})
}

// A home partition is read all the time, whether streams follow it or not.
func TestHomePartitionsAreAlwaysRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 4)
		h := r.newHub(Config{})
		h.Start()
		time.Sleep(10 * time.Second)
		for s := range 300 {
			time.Sleep(time.Second)
			synctest.Wait()
			if n := h.Stats().Tails; n != 4 {
				t.Fatalf("%d of 4 home partitions are read after %d s", n, s)
			}
		}
	})
}
