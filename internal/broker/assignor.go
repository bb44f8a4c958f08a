package broker

import (
	"cmp"
	"slices"
)

// claimant is a member of a group, as one who shares out a topic's partitions
// sees it.
type claimant struct {
	id string
	// owned are the partitions that it claims, sorted, since generation.
	owned      []int32
	generation int32
	// interrupted says that the claims are of a former membership.
	interrupted bool
}

// portion is a member's part of a topic.
type portion struct {
	// owned are the partitions that the member has from now on, and revoke those
	// that it has and is to give up, for others to get in the next round.
	owned, revoke []int32
}

// share shares out the partitions of a topic. Each member gets as many as the
// others, or one more, and keeps as many of its own as that allows. A partition
// that a member has is never given to another: the member is told to give it up,
// and it is free in the next round. After that round nothing moves any more.
//
// The claims of a member whose membership was interrupted are worth less. It has
// stopped to count on them, so what it cannot keep goes to others at once, and
// where somebody else claims the same, it loses. Of several such members the one
// with the youngest claim wins.
//
// The portions are in the order of the members, on which nothing else depends.
func share(partitions int32, members []claimant) []portion {
	portions := make([]portion, len(members))
	if len(members) == 0 {
		return portions
	}
	held, free := settleClaims(partitions, members)
	quota := quotas(int(partitions), members, held)
	for i := range members {
		keep := min(len(held[i]), quota[i])
		portions[i].owned = slices.Clone(held[i][:keep])
		if surplus := held[i][keep:]; members[i].interrupted {
			free = append(free, surplus...)
		} else {
			portions[i].revoke = slices.Clone(surplus)
		}
	}
	slices.Sort(free)
	// The quotas add up to all partitions, so there is always room for what is free.
	for _, p := range free {
		neediest := -1
		for i := range members {
			if len(portions[i].owned) < quota[i] && (neediest < 0 || cmp.Or(
				cmp.Compare(len(portions[i].owned), len(portions[neediest].owned)),
				cmp.Compare(members[i].id, members[neediest].id)) < 0) {
				neediest = i
			}
		}
		portions[neediest].owned = append(portions[neediest].owned, p)
	}
	for i := range portions {
		slices.Sort(portions[i].owned)
	}
	return portions
}

// settleClaims gives the partitions that each member has, sorted, and those that
// nobody claims.
func settleClaims(partitions int32, members []claimant) (held [][]int32, free []int32) {
	holder := make([]int, partitions)
	for p := range holder {
		holder[p] = -1
	}
	for i, m := range members {
		for _, p := range m.owned {
			if p < partitions && (holder[p] < 0 || outranks(m, members[holder[p]])) {
				holder[p] = i
			}
		}
	}
	held = make([][]int32, len(members))
	for p, i := range holder {
		if i < 0 {
			free = append(free, int32(p)) //nolint:gosec // below partitions
		} else {
			held[i] = append(held[i], int32(p)) //nolint:gosec // below partitions
		}
	}
	return held, free
}

// outranks reports whether a's claims go before b's.
func outranks(a, b claimant) bool {
	if a.interrupted != b.interrupted {
		return b.interrupted
	}
	return cmp.Or(cmp.Compare(b.generation, a.generation), cmp.Compare(a.id, b.id)) < 0
}

// quotas says how many partitions each member is to have. The larger ones go to
// those who have the most already, so that the fewest move.
func quotas(partitions int, members []claimant, held [][]int32) []int {
	order := make([]int, len(members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(len(held[b]), len(held[a])), cmp.Compare(members[a].id, members[b].id))
	})
	quota := make([]int, len(members))
	for rank, i := range order {
		quota[i] = partitions / len(members)
		if rank < partitions%len(members) {
			quota[i]++
		}
	}
	return quota
}
