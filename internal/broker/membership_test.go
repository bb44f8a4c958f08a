package broker

import (
	"slices"
	"testing"
	"time"
)

func TestMembership(t *testing.T) {
	bubble(t, "one has everything", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		one.wants(0, 1, 2, 3)
		a := one.last()
		if !slices.Equal(a.Gained, a.Owned) || len(a.Regained)+len(a.Lost) > 0 {
			t.Errorf("%+v", a)
		}
		if a.Topic.ID != w.topic(groupTopic).ID || a.Topic.Partitions() != 4 || a.Generation != one.Generation() || one.MemberID() == "" {
			t.Errorf("%+v", a)
		}
		holdFor(t, time.Minute, one)
		if one.rounds() != 1 {
			t.Errorf("%d rounds in a quiet minute", one.rounds())
		}
	})

	bubble(t, "only what must moves when members come and leave", func(t *testing.T) {
		w := groupWorld(t, 12)
		one := w.join()
		pass(time.Second)
		two := w.join()
		holdFor(t, 5*time.Second, one)
		shared(t, 12, one, two)
		if n := len(one.gaveUpSoFar()); n != 6 {
			t.Errorf("%d partitions moved, want 6", n)
		}
		three := w.join()
		holdFor(t, 5*time.Second, one, two)
		shared(t, 12, one, two, three)
		if n := len(one.gaveUpSoFar()) + len(two.gaveUpSoFar()); n != 6+4 {
			t.Errorf("%d partitions moved, want 10", n)
		}
		had := two.last().Owned
		one.Leave(t.Context())
		holdFor(t, 5*time.Second, two, three)
		shared(t, 12, two, three)
		if kept := common(had, two.last().Owned); !slices.Equal(kept, had) {
			t.Errorf("%v of %v stayed when another left", kept, had)
		}
		uninterrupted(t, one, two, three)
	})

	bubble(t, "a moved partition stands still for less than a second", func(t *testing.T) {
		w := groupWorld(t, 24)
		var peers []*peer
		for range 5 {
			comes := w.join()
			holdFor(t, 5*time.Second, peers...)
			peers = append(peers, comes)
		}
		peers[1].Leave(t.Context())
		holdFor(t, 5*time.Second, peers[2:]...)
		moves, longest := standstills(peers)
		t.Logf("%d moves, the longest took %v", moves, longest)
		if moves < 12+8+6+4+5 || longest >= time.Second {
			t.Errorf("%d moves, the longest took %v", moves, longest)
		}
	})

	bubble(t, "a crash is over with the session", func(t *testing.T) {
		w := groupWorld(t, 6)
		one, two, three := w.join(), w.join(), w.join()
		pass(5 * time.Second)
		shared(t, 6, one, two, three)
		three.cut(true)
		holdFor(t, testSession+3*time.Second, one, two)
		shared(t, 6, one, two)
		if three.Holds() {
			t.Error("a member that hears nothing holds its partitions")
		}
		uninterrupted(t, one, two)
		three.cut(false)
		holdFor(t, 5*time.Second, one, two)
		shared(t, 6, one, two, three)
		if lost := three.lostOrRegained(); len(lost) != 2 {
			t.Errorf("told of %v", lost)
		}
	})
}
