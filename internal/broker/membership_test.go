package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
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

	bubble(t, "as many partitions as were shared out", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		for _, n := range []int32{3, 4, 6} {
			if got := one.shared(n); got.Partitions() != n || got.ID != w.topic(groupTopic).ID {
				t.Errorf("%+v, want %d partitions", got, n)
			}
		}
	})

	bubble(t, "growth is shared out when asked for", func(t *testing.T) {
		w := groupWorld(t, 2)
		one, two := w.join(), w.join()
		pass(5 * time.Second)
		w.grow(groupTopic, 5)
		one.Rejoin()
		holdFor(t, 3*time.Second, one, two)
		shared(t, 5, one, two)
		if n := one.last().Topic.Partitions(); n != 5 {
			t.Errorf("%d partitions", n)
		}
		uninterrupted(t, one, two)
	})

	bubble(t, "a topic that is gone stays with those who have it", func(t *testing.T) {
		w := groupWorld(t, 4, kfake.AllowAutoTopicCreation())
		one, two := w.join(), w.join()
		pass(5 * time.Second)
		if err := w.DeleteTopic(groupTopic); err != nil {
			t.Fatal(err)
		}
		one.Rejoin()
		holdFor(t, 3*time.Second, one, two)
		shared(t, 4, one, two)
		uninterrupted(t, one, two)
		stays, leaves := one, two // with the last partition, of which no claim is left
		if slices.Contains(one.last().Owned, 3) {
			stays, leaves = two, one
		}
		leaves.Leave(t.Context())
		pass(3 * time.Second)
		stays.wants(0, 1, 2, 3)
		if w.TopicInfo(groupTopic) != nil {
			t.Error("the topic was created")
		}
	})

	bubble(t, "waits for its topic", func(t *testing.T) {
		w := newWorld(t, kfake.AllowAutoTopicCreation())
		one := w.join()
		pass(time.Minute)
		if w.TopicInfo(groupTopic) != nil || w.GroupInfo(testGroup) != nil {
			t.Error("joined without a topic, or created it")
		}
		if one.count("topic of the consumer group is not there yet") != 1 {
			t.Error("not told, or more than once")
		}
		w.make(groupTopic, 2, nil)
		pass(3 * time.Second)
		one.wants(0, 1)
	})

	bubble(t, "of two topics", func(t *testing.T) {
		w := groupWorld(t, 4)
		w.make("bills", 3, nil)
		bills := func(c *GroupConfig) { c.Topic = "bills" }
		one, two := w.join(), w.join(bills)
		pass(5 * time.Second)
		one.wants(0, 1, 2, 3)
		two.wants(0, 1, 2)
		three := w.join(bills)
		holdFor(t, 5*time.Second, one, two)
		shared(t, 3, two, three)
		one.wants(0, 1, 2, 3)
		two.Leave(t.Context())
		one.Leave(t.Context())
		pass(3 * time.Second)
		three.wants(0, 1, 2)
	})

	bubble(t, "a fingerprint of each, and another after a change", func(t *testing.T) {
		w := groupWorld(t, 2)
		one := w.join(func(c *GroupConfig) { c.Fingerprint = "b" })
		two := w.join(func(c *GroupConfig) { c.Fingerprint = "a" })
		three := w.join()
		pass(5 * time.Second)
		for _, p := range []*peer{one, two, three} {
			if got := p.last().Fingerprints; !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("%q", got)
			}
		}
		two.SetFingerprint("b")
		holdFor(t, 3*time.Second, one, two)
		for _, p := range []*peer{one, two, three} {
			if got := p.last().Fingerprints; !slices.Equal(got, []string{"b"}) {
				t.Errorf("%q", got)
			}
		}
		rounds := one.rounds()
		two.SetFingerprint("b") // which is none
		pass(5 * time.Second)
		if one.rounds() != rounds {
			t.Error("a round for no change")
		}
	})
}
