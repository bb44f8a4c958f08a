package autoscale

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/segmentio/kafka-go"
)

// leaseBalancer leaves the lease where it is, as long as its holder takes part:
// members say in their metadata since which generation they hold it.
type leaseBalancer struct{ lease *GroupLease }

// ProtocolName names the way of balancing.
func (leaseBalancer) ProtocolName() string { return LeaseTopic }

// UserData says since when this member holds the lease.
func (b leaseBalancer) UserData() ([]byte, error) {
	if since, held := b.lease.Held(); held {
		return binary.BigEndian.AppendUint32(nil, uint32(since)), nil //nolint:gosec // only its bits
	}
	return nil, nil
}

// AssignGroups gives the lease to the one who has held it since the youngest
// generation, else to the first by name; also when the topic is gone, since
// nothing is read from it.
func (leaseBalancer) AssignGroups(members []kafka.GroupMember, _ []kafka.Partition) kafka.GroupMemberAssignments {
	assignments := make(kafka.GroupMemberAssignments)
	for _, m := range members {
		assignments[m.ID] = map[string][]int{}
	}
	if len(members) > 0 {
		holder := slices.MaxFunc(members, func(a, b kafka.GroupMember) int {
			return cmp.Or(cmp.Compare(heldSince(a), heldSince(b)), cmp.Compare(b.ID, a.ID))
		})
		assignments[holder.ID][LeaseTopic] = []int{0}
	}
	return assignments
}

// heldSince reads what UserData has written, -1 if the lease is not held.
func heldSince(m kafka.GroupMember) int64 {
	if len(m.UserData) != 4 {
		return -1
	}
	return int64(binary.BigEndian.Uint32(m.UserData))
}

// Interface guards
var _ kafka.GroupBalancer = leaseBalancer{}
