package autoscale

import (
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// A partition stands still while members die of its first record one after the
// other, and not while nobody is there to work on it.
func TestAPartitionStallsThroughRebalances(t *testing.T) {
	type state struct {
		of            string
		owned, stable bool
		members       int
		worked        bool
		wait          int64
	}
	owned := state{"a member has it", true, true, 1, false, 5}
	between := state{"members share out anew", false, false, 2, false, 5}
	for _, tt := range []struct {
		name string
		play []state // a minute of each
		want time.Duration
	}{
		{"who has it stands still", []state{owned, owned}, 2 * time.Minute},
		{"each that gets it dies", []state{owned, between, owned, between}, 4 * time.Minute},
		{"scaled to zero", []state{{"nobody", false, true, 0, false, 5}, {"nobody", false, false, 0, false, 5}}, 0},
		{"scaled to zero while it stood still", []state{owned, {"nobody", false, true, 0, false, 5}, {"nobody", false, true, 0, false, 5}}, time.Minute},
		{"who starts", []state{{"nobody", false, true, 0, false, 5}, between}, 0},
		{"members want other topics", []state{owned, {"a stable group", false, true, 2, false, 5}}, time.Minute},
		{"it is not told who is there", []state{owned, {"unknown", false, false, Unknown, false, 5}}, time.Minute},
		{"something is done", []state{owned, {"done", true, true, 1, true, 4}, owned}, time.Minute},
		{"something was done before they share out anew", []state{owned, {"done", false, false, 1, true, 4}, between}, 0},
		{"nothing waits", []state{owned, {"empty", true, true, 1, false, 0}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := part{read: start}
			for i, s := range tt.play {
				p.owned, p.worked, p.lag = s.owned, s.worked, s.wait
				p.stall(start.Add(time.Duration(i+1)*time.Minute), &group{stable: s.stable, members: s.members})
			}
			if p.stalled != tt.want {
				t.Fatalf("it stands still for %s, not %s", p.stalled, tt.want)
			}
		})
	}
}

// A partition loses a member that had it when that member has left the group, and not
// when it goes to another one.
func TestAPartitionLosesMembers(t *testing.T) {
	having := func(id string, partitions ...int32) broker.Member {
		return broker.Member{ID: id, Assigned: []broker.Assigned{{Topic: "orders", Partitions: partitions}}}
	}
	w := &Watch{of: Watched{Topic: "orders"}, topic: &topic{ends: make([]end, 2)}, parts: make([]part, 2)}
	for i := range w.parts {
		w.parts[i].lag = 5
	}
	now := start
	for _, tt := range []struct {
		of      string
		members []broker.Member
		stable  bool
		worked  bool
		lost    [2]int
	}{
		{"the first comes", []broker.Member{having("a", 0, 1)}, true, false, [2]int{0, 0}},
		{"they share out", []broker.Member{having("a"), having("b")}, false, false, [2]int{0, 0}},
		{"one goes to another", []broker.Member{having("a", 0), having("b", 1)}, true, false, [2]int{0, 0}},
		{"it is not told who is there", nil, false, false, [2]int{0, 0}},
		{"the first dies", []broker.Member{having("b")}, false, false, [2]int{1, 0}},
		{"the other has both", []broker.Member{having("b", 0, 1)}, true, false, [2]int{1, 0}},
		{"it dies too", []broker.Member{having("c", 0, 1)}, true, false, [2]int{2, 1}},
		{"something is done", []broker.Member{having("c", 0, 1)}, true, true, [2]int{0, 0}},
		{"that one dies", []broker.Member{having("d", 0, 1)}, true, false, [2]int{1, 1}},
	} {
		now = now.Add(time.Second)
		w.assigned(tt.members, tt.stable)
		for i := range w.parts {
			w.parts[i].worked = tt.worked
		}
		w.group = &group{stable: tt.stable, members: len(tt.members)}
		told := w.measure(now).Partitions
		if got := [2]int{told[0].Lost, told[1].Lost}; got != tt.lost {
			t.Fatalf("%s: %v are lost, want %v", tt.of, got, tt.lost)
		}
	}
}
