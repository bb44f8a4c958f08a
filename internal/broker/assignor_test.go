package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestShare(t *testing.T) {
	for name, c := range map[string]struct {
		partitions int32
		members    []claimant
		want       []portion
	}{
		"nobody": {4, nil, []portion{}},
		"one":    {3, []claimant{{id: "a"}}, []portion{{owned: []int32{0, 1, 2}}}},
		"more members than partitions": {
			1, []claimant{{id: "b"}, {id: "a"}},
			[]portion{{}, {owned: []int32{0}}},
		},
		"a new one waits for what others have": {
			4, []claimant{{id: "a", owned: []int32{0, 1, 2, 3}, generation: 1}, {id: "b", generation: -1}},
			[]portion{{owned: []int32{0, 1}, revoke: []int32{2, 3}}, {}},
		},
		"and has it in the next round": {
			4, []claimant{{id: "a", owned: []int32{0, 1}, generation: 2}, {id: "b", generation: 2}},
			[]portion{{owned: []int32{0, 1}}, {owned: []int32{2, 3}}},
		},
		"the larger part stays where it is": {
			5, []claimant{{id: "a", owned: []int32{0, 1}}, {id: "b", owned: []int32{2, 3, 4}}},
			[]portion{{owned: []int32{0, 1}}, {owned: []int32{2, 3, 4}}},
		},
		"what is free goes to who has least": {
			6, []claimant{{id: "a", owned: []int32{0, 1, 2}}, {id: "b", owned: []int32{3}}},
			[]portion{{owned: []int32{0, 1, 2}}, {owned: []int32{3, 4, 5}}},
		},
		"the youngest claim goes first": {
			2, []claimant{
				{id: "a", owned: []int32{0}, generation: 3, interrupted: true},
				{id: "b", owned: []int32{0}, generation: 4, interrupted: true},
			},
			[]portion{{owned: []int32{1}}, {owned: []int32{0}}},
		},
		"a former member's claim goes last, however young": {
			2, []claimant{
				{id: "a", owned: []int32{0, 1}, generation: 57, interrupted: true},
				{id: "b", owned: []int32{0}, generation: 1},
			},
			[]portion{{owned: []int32{1}}, {owned: []int32{0}}},
		},
		"a former member has again what nobody claims": {
			4, []claimant{{id: "a", owned: []int32{2, 3}, generation: 5, interrupted: true}, {id: "b", generation: -1, interrupted: true}},
			[]portion{{owned: []int32{2, 3}}, {owned: []int32{0, 1}}},
		},
		"a former member is not asked to give up": {
			2, []claimant{{id: "a", owned: []int32{0, 1}, generation: 5, interrupted: true}, {id: "b", generation: -1, interrupted: true}},
			[]portion{{owned: []int32{0}}, {owned: []int32{1}}},
		},
		"claims of partitions that are none": {
			2, []claimant{{id: "a", owned: []int32{1, 2, 1 << 30}}, {id: "b"}},
			[]portion{{owned: []int32{1}}, {owned: []int32{0}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := share(c.partitions, c.members)
			for i := range got {
				if !got[i].equal(c.want[i]) {
					t.Errorf("%s: %v, want %v", c.members[i].id, got[i], c.want[i])
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("%d portions, want %d", len(got), len(c.want))
			}
		})
	}
}

// Whatever the members claim: nothing has two owners, nothing that a member has
// goes to another in the same round, as few move as can be, and the round after
// the next has nothing left to do.
func TestShareIsBalancedAndSticky(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 12))
		partitions := r.Int32N(40)
		members := make([]claimant, 1+r.IntN(9))
		owner := make([]int, partitions) // as the last generation has left it
		for p := range owner {
			owner[p] = r.IntN(2*len(members)) - len(members) // and some are nobody's
		}
		for i := range members {
			members[i] = claimant{id: fmt.Sprint("m", i), generation: r.Int32N(5), interrupted: r.IntN(4) == 0}
			for p, o := range owner {
				// A former member may claim what another has got since.
				if o == i || members[i].interrupted && r.IntN(3) == 0 {
					members[i].owned = append(members[i].owned, int32(p))
				}
			}
		}
		r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		fail := func(format string, values ...any) {
			t.Helper()
			t.Fatalf("seed %d, %d partitions, %+v: %s", seed, partitions, members, fmt.Sprintf(format, values...))
		}

		first := share(partitions, members)
		seen := make(map[int32]bool)
		for i, p := range first {
			for _, n := range p.owned {
				if seen[n] || n < 0 || n >= partitions {
					fail("partition %d is given twice, or there is none", n)
				}
				seen[n] = true
				for j, m := range members {
					if j != i && !m.interrupted && slices.Contains(m.owned, n) {
						fail("partition %d is given to %s, and %s has it", n, members[i].id, m.id)
					}
				}
			}
			for _, n := range p.revoke {
				if seen[n] || members[i].interrupted || !slices.Contains(members[i].owned, n) {
					fail("%s is asked to give up %d", members[i].id, n)
				}
				seen[n] = true
			}
		}
		if len(seen) != int(partitions) {
			fail("%d of %d partitions are somebody's", len(seen), partitions)
		}
		if kept, most := keptOf(members, first), mostKept(partitions, members); kept != most {
			fail("%d partitions stay, %d could", kept, most)
		}

		second := nextRound(members, first)
		portions := share(partitions, second)
		least, most := partitions, int32(0)
		for i, p := range portions {
			if len(p.revoke) > 0 || len(without(second[i].owned, p.owned)) > 0 {
				fail("%s is asked for %v in the second round", second[i].id, p.revoke)
			}
			least, most = min(least, int32(len(p.owned))), max(most, int32(len(p.owned)))
		}
		if most > least+1 {
			fail("between %d and %d partitions", least, most)
		}
		third := nextRound(second, portions)
		if again := share(partitions, third); !slices.EqualFunc(again, portions, portion.equal) {
			fail("something moves in the third round: %v after %v", again, portions)
		}

		// Nor does the order of the members matter.
		order := r.Perm(len(members))
		shuffled := make([]claimant, len(members))
		for i, j := range order {
			shuffled[i] = members[j]
		}
		for i, p := range share(partitions, shuffled) {
			if !p.equal(first[order[i]]) {
				fail("%v in another order, %v in this one", p, first[order[i]])
			}
		}
	}
}

func (p portion) equal(q portion) bool {
	return slices.Equal(p.owned, q.owned) && slices.Equal(p.revoke, q.revoke)
}

// nextRound is what members claim after a round.
func nextRound(members []claimant, portions []portion) []claimant {
	next := make([]claimant, len(members))
	for i, m := range members {
		next[i] = claimant{id: m.id, owned: portions[i].owned, generation: 10}
	}
	return next
}

// keptOf counts the partitions that stay where they are.
func keptOf(members []claimant, portions []portion) int {
	held, _ := settleClaims(partitionsOf(portions), members)
	kept := 0
	for i := range members {
		kept += len(common(held[i], portions[i].owned))
	}
	return kept
}

func partitionsOf(portions []portion) int32 {
	n := 0
	for _, p := range portions {
		n += len(p.owned) + len(p.revoke)
	}
	return int32(n)
}

// mostKept tries every choice of the members that have one more than the others.
func mostKept(partitions int32, members []claimant) int {
	held, _ := settleClaims(partitions, members)
	floor, larger := int(partitions)/len(members), int(partitions)%len(members)
	best := 0
	for choice := range 1 << len(members) {
		chosen, kept := 0, 0
		for i := range members {
			quota := floor
			if choice>>i&1 == 1 {
				quota, chosen = quota+1, chosen+1
			}
			kept += min(len(held[i]), quota)
		}
		if chosen == larger {
			best = max(best, kept)
		}
	}
	return best
}
