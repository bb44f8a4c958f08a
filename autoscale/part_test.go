package autoscale

import (
	"testing"
	"time"
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
