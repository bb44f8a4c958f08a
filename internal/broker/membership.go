package broker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// GroupConfig says how to be a member of a consumer group on one topic.
type GroupConfig struct {
	Group, Topic string
	// Session is how long the group keeps the place of a member that says
	// nothing, Rebalance how long it waits for members when it shares out
	// partitions anew. Heartbeat is how often a member says that it is there.
	Session, Rebalance, Heartbeat time.Duration
	// Margin is how long before the end of its session a member stops to count
	// on it: see Membership.Holds.
	Margin time.Duration
	// Leave bounds how long LeaveGroup and the requests in flight may take when
	// the member leaves. Revoke has a context of its own.
	Leave time.Duration
	// Fingerprint is compared among the members; see Assignment.Fingerprints.
	// An empty one is not compared.
	Fingerprint string
	Logger      *zap.Logger

	// Assigned is told every new assignment. Revoke is asked to give partitions
	// up. Both are called from one goroutine, one at a time.
	//
	// Revoke is called while the member still owns the partitions, so that
	// commits are accepted, and returns when they may go to another member. Its
	// context ends after a third of Rebalance, at most 5 s. It may be nil.
	Assigned func(Assignment)
	Revoke   func(ctx context.Context, partitions []int32)
}

// Assignment is what a member has after a rebalance. All lists are sorted.
type Assignment struct {
	Generation int32
	// Topic is the topic after the partitions were shared out, asked from the
	// broker by this member.
	Topic Topic
	// Owned are all partitions of this member. Of these Gained are new, and
	// Regained were its own before an interruption of its membership (its session
	// has run out, or the coordinator forgot it) and are again: another member may
	// have had them in between.
	Owned, Gained, Regained []int32
	// Lost were its own and are not any more, without having been revoked:
	// another member may have them for some time already. Nothing can be
	// committed for them.
	Lost []int32
	// Fingerprints are the different ones of all members.
	Fingerprints []string
}

// CommitOffset is where a group goes on in a partition of its topic.
type CommitOffset struct {
	Partition int32
	// Offset is -1 where nothing is committed.
	Offset   int64
	Metadata string
}

// ErrNotMember says that the coordinator of a group does not know the member, or
// does not any more. Nothing was committed.
var ErrNotMember = errors.New("not a member of the group any more")

// Membership is a membership in a consumer group, from JoinGroup until Leave.
type Membership struct {
	client *Client
	config GroupConfig
}

// JoinGroup begins to be a member, and goes on until Leave. It waits for nothing:
// neither broker nor topic need be there yet. The member joins once the topic is
// there, and never creates it.
func (c *Client) JoinGroup(g GroupConfig) *Membership {
	return &Membership{client: c, config: g}
}

// Holds reports whether this member surely still owns its partitions: the last
// request of its membership that was answered well was sent less than Session -
// Margin ago, by the monotonic clock. It is false before the first Assigned has
// returned, from the moment the coordinator says that it does not know this
// member, and after such an interruption until the next Assigned has returned.
func (m *Membership) Holds() bool { return time.Now().Before(m.HoldsUntil()) }

// HoldsUntil is the time until which the member holds its partitions if nothing
// more is heard from the coordinator. It is zero if it does not hold them.
func (m *Membership) HoldsUntil() time.Time { return time.Time{} }

// Generation is that of the last assignment.
func (m *Membership) Generation() int32 { return 0 }

// MemberID is the member's id in the group, as the coordinator named it; empty
// before it has.
func (m *Membership) MemberID() string { return "" }

// Rejoin has the group share out partitions anew, because the topic has grown or
// is another one.
func (m *Membership) Rejoin() {}

// Commit commits offsets with metadata for owned partitions, under the current
// generation. A refusal only because a rebalance is going on is tried again until
// ctx ends. The error is ErrNotMember if the coordinator does not know this
// member.
func (m *Membership) Commit(ctx context.Context, offsets []CommitOffset) error {
	return ErrNotMember
}

// Committed reads what the group has committed for partitions of the topic. A
// partition that has an error of its own is missing from the map, and the error
// says why.
func (m *Membership) Committed(ctx context.Context, partitions []int32) (map[int32]CommitOffset, error) {
	return nil, ErrNotMember
}

// Leave gives everything up: it calls Revoke with ctx and all partitions if they
// are held, and leaves the group. Then no callback is called any more. It returns
// when the group was left, or when ctx or the config's Leave has ended.
func (m *Membership) Leave(ctx context.Context) {}
