package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// GroupConfig says how to be a member of a consumer group on one topic.
type GroupConfig struct {
	Group, Topic string
	// Session is how long the group keeps the place of a member that says
	// nothing. Heartbeat is how often a member says that it is there, and so how
	// long it may take until it hears that another one has left.
	//
	// Rebalance is how long the group waits for members when it shares out
	// partitions anew. It should be longer than Session: then a member that has
	// died is given up by its session, and nobody is near the end of Rebalance,
	// where Holds turns false.
	Session, Rebalance, Heartbeat time.Duration
	// Margin is how long before the end of its session a member stops to count
	// on it: see Membership.Holds.
	Margin time.Duration
	// Leave bounds how long LeaveGroup and the requests in flight may take when
	// the member leaves. Revoke has a context of its own.
	Leave time.Duration
	// Fingerprint is compared among the members; see Assignment.Fingerprints. An
	// empty one is not compared. What is beyond 248 bytes is cut off.
	Fingerprint string
	Logger      *zap.Logger

	// Assigned is told every new assignment. Revoke is asked to give partitions
	// up. Both are called from one goroutine, one at a time, and the group's next
	// rebalance waits for them. They may be called before JoinGroup has returned,
	// and must not call Leave.
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
	// broker by this member, with as many partitions as were shared out. If the
	// broker cannot be asked, or has no such topic, it is the topic as it was
	// known last.
	Topic Topic
	// Owned are all partitions of this member, also those that Revoke will be
	// asked for next. Of these Gained are new, and Regained were its own before an
	// interruption of its membership (its session has run out, or the coordinator
	// forgot it) and are again: another member may have had them in between.
	Owned, Gained, Regained []int32
	// Tenure tells times apart in which the member has had a partition: that of
	// Gained and Regained is this one, see CommitOffset.
	Tenure uint64
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
	// Tenure is that of the Assignment in which the partition came to the member. A
	// commit that was made in an earlier one is refused with ErrNotMember: another
	// member may have had the partition in between, and have committed more. 0 is not
	// compared.
	Tenure uint64
}

// ErrNotMember says that the coordinator of a group does not know the member, or
// does not any more, or that a partition is not the member's. Nothing was
// committed.
var ErrNotMember = errors.New("not a member of the group any more")

// Membership is a membership in a consumer group, from JoinGroup until Leave. It
// speaks Kafka's classic group protocol, cooperative and sticky: a member that
// joins again claims what it owns and goes on with it meanwhile, and only what
// moves changes hands. See assignor.go for who gets what.
//
// A member joins again under its own name whenever the group shares out
// partitions. Requests that are not answered end nothing: the coordinator is
// looked up again and asked again, and only its word that it does not know the
// member interrupts the membership.
//
// # Concurrency
//
// One goroutine goes from round to round and calls the callbacks; one round at a
// time, a join and its sync, runs in another, so that leaving need not wait for
// it; a third sends heartbeats all the while. All that they share is behind mu,
// which is never held during a request or a callback.
type Membership struct {
	client *Client
	config GroupConfig
	log    *zap.Logger

	ctx    context.Context // ends when the member is to leave
	cancel context.CancelFunc
	done   chan struct{} // closed when it has left
	wake   chan struct{} // there may be reason to join again
	nudge  chan struct{} // a heartbeat is due now

	mu sync.Mutex
	// id is the member's, as the coordinator has named it; "" until then, and
	// after it was forgotten. generation is that of the last join, -1 before.
	id         string
	generation int32
	phase      phase
	// again says that the group is to be joined again after this round, why is
	// told to the broker, for its log.
	again bool
	why   string
	// epoch counts the interruptions. What was asked for in one is of no use in
	// the next.
	epoch int

	// owned are the partitions as Assigned was told last, without those revoked
	// since; told is the generation of that. current says that they were assigned
	// to the member of this epoch: otherwise they are mere claims of its former
	// self. sure says that Assigned has returned.
	owned   []int32
	told    int32
	current bool
	sure    bool
	topic   Topic

	// tenure is that of the last assignment, tenures those in which the partitions
	// that are owned came to the member.
	tenure  uint64
	tenures map[int32]uint64

	// good is when the last request was sent that was answered well, and calm the
	// same of those that say that no rebalance has begun: see HoldsUntil.
	good, calm time.Time
	// hurry is until when the next round is about to come, so that heartbeats are
	// frequent.
	hurry time.Time
	// joining is when the join in flight was sent, and cut ends it.
	joining time.Time
	cut     context.CancelFunc

	fingerprint string
	coordinator int32 // -1 if it is to be looked up
	failures    int   // requests in a row that were not answered
	refused     time.Time
	leave       context.Context // what Leave was called with
	changed     chan struct{}   // closed when id, generation or phase has changed
}

// phase is where a member is in a round.
type phase int8

const (
	idle phase = iota
	joining
	syncing
)

// JoinGroup begins to be a member, and goes on until Leave. It waits for nothing:
// neither broker nor topic need be there yet. The member joins once the topic is
// there, and never creates it.
func (c *Client) JoinGroup(g GroupConfig) *Membership {
	if g.Logger == nil {
		g.Logger = zap.NewNop()
	}
	m := &Membership{
		client: c, config: g, log: g.Logger.With(zap.String("group", g.Group)),
		done: make(chan struct{}), wake: make(chan struct{}, 1), nudge: make(chan struct{}, 1),
		generation: -1, told: -1, fingerprint: g.Fingerprint, coordinator: -1,
		cut: func() {}, changed: make(chan struct{}), tenures: make(map[int32]uint64),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	go m.run()
	return m
}

// Holds reports whether this member surely still owns its partitions: the last
// request of its membership that was answered well was sent less than Session -
// Margin ago, by the monotonic clock. It is false before the first Assigned has
// returned, from the moment the coordinator says that it does not know this
// member, and after such an interruption until the next Assigned has returned.
func (m *Membership) Holds() bool { return !m.HoldsUntil().IsZero() }

// HoldsUntil is the time until which the member holds its partitions if nothing
// more is heard from the coordinator. It is zero if it does not hold them.
//
// A member that the coordinator hears of is put out of the group all the same if
// it has not joined again Rebalance after a rebalance has begun. So what is held
// ends before that too.
func (m *Membership) HoldsUntil() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if until := m.until(); m.sure && time.Now().Before(until) {
		return until
	}
	return time.Time{}
}

// until is when the coordinator may give up the member at the earliest, less the
// margin. The caller holds mu.
func (m *Membership) until() time.Time {
	session, rebalance := m.good.Add(m.config.Session), m.calm.Add(m.config.Rebalance)
	if rebalance.Before(session) {
		session = rebalance
	}
	return session.Add(-m.config.Margin)
}

// Generation is that of the last assignment.
func (m *Membership) Generation() int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// MemberID is the member's id in the group, as the coordinator named it; empty
// before it has.
func (m *Membership) MemberID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id
}

// Rejoin has the group share out partitions anew, because the topic has grown or
// is another one.
func (m *Membership) Rejoin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joinAgain("the topic has changed")
}

// SetFingerprint changes what is compared among the members, and has them compare it.
func (m *Membership) SetFingerprint(fingerprint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fingerprint != fingerprint {
		m.fingerprint = fingerprint
		m.joinAgain("the fingerprint has changed")
	}
}

// Leave gives everything up: it calls Revoke with ctx and all partitions if they
// are held, and leaves the group. Then no callback is called any more. It returns
// when the group was left, at the latest the config's Leave after ctx has ended,
// and a moment more.
func (m *Membership) Leave(ctx context.Context) {
	m.mu.Lock()
	if m.leave == nil {
		m.leave = ctx
	}
	m.mu.Unlock()
	m.cancel()
	select {
	case <-m.done:
		return
	case <-ctx.Done():
	}
	// What is in flight ends with Leave, so the caller need not close the client
	// under it.
	limit := time.NewTimer(m.config.Leave + leaveSlack)
	defer limit.Stop()
	select {
	case <-m.done:
	case <-limit.C:
	}
}

// leaveSlack is that moment.
const leaveSlack = 500 * time.Millisecond

// joinAgain has a new round follow. The caller holds mu.
func (m *Membership) joinAgain(why string) {
	m.again, m.why = true, why
	signal(m.wake)
}

// expel ends the membership of a member that the coordinator does not know. What
// it owns are mere claims from now on. The caller holds mu.
func (m *Membership) expel(id string) {
	if id == "" || m.id != id {
		return // it has another name by now
	}
	if m.current {
		m.log.Warn("consumer group has given up this member", zap.String("member", id), zap.Int32s("partitions", m.owned))
	}
	m.id, m.generation = "", -1
	m.epoch++
	m.current, m.sure = false, false
	m.hurry = time.Time{}
	m.cut()
	m.joinAgain("the coordinator does not know the member")
	m.notify()
}

// wellAnswered takes note of a request of this member that was answered well.
// The caller holds mu.
func (m *Membership) wellAnswered(sent time.Time, calm bool) {
	if sent.After(m.good) {
		m.good = sent
	}
	if calm && sent.After(m.calm) {
		m.calm = sent
	}
	m.failures = 0
}

// notify wakes those who wait for a change. The caller holds mu.
func (m *Membership) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// signal leaves word in a channel that keeps one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// claim is what the member says when it joins. The caller holds mu.
func (m *Membership) claim() []byte {
	return subscription{
		topic: m.config.Topic, owned: m.owned, generation: m.told,
		interrupted: !m.current, fingerprint: m.fingerprint,
	}.encode()
}

// owns reports whether all of the offsets are of partitions of this member, as
// it was assigned them. The caller holds mu.
func (m *Membership) owns(offsets []CommitOffset) bool {
	for _, o := range offsets {
		if _, ok := slices.BinarySearch(m.owned, o.Partition); !ok || o.Tenure != 0 && o.Tenure != m.tenures[o.Partition] {
			return false
		}
	}
	return m.current && m.id != ""
}

// What a group's members speak.
const (
	// groupProtocol names our way of sharing out. The coordinator refuses a
	// member that has no protocol in common with those that are there, so no
	// member of another kind is ever in a group with ours.
	groupProtocol = "osmosis-sticky-1"
	// protocolType is that of consumers, whose assignments tools can read.
	protocolType = "consumer"
)

// The versions of the group's requests that this client speaks.
var (
	joinVersions      = span{1, 8} // 0 has no rebalance timeout
	syncVersions      = span{0, 5}
	heartbeatVersions = span{0, 4}
	leaveVersions     = span{0, 5}
	commitVersions    = span{2, 9} // from 10 on topics go by their ids
)
