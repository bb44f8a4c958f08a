package autoscale

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// LeaseTopic is the topic whose one partition is what processes hold when they
// decide. Nothing is ever written to it.
const LeaseTopic = "osmosis.lease"

const (
	// A process that dies loses its leases within leaseSession; one that leaves
	// loses them within a heartbeat of the others.
	leaseSession   = 10 * time.Second
	leaseRebalance = 30 * time.Second
	leaseHeartbeat = time.Second

	// leaseMargin is how long before the group may give a lease to another its
	// holder stops: what it is just doing has to end by then.
	leaseMargin = 2 * time.Second

	// leaseLeave is how long leaving the group may take.
	leaseLeave = 3 * time.Second

	// leaseAnswer is how long a broker may take to answer.
	leaseAnswer = 3 * time.Second

	// leaseLook is how often a process to which the lease was given looks whether
	// it holds it, while it does not.
	leaseLook = 50 * time.Millisecond
)

// leasePartition is the one partition of LeaseTopic.
const leasePartition int32 = 0

// LeaseGroup names the consumer group whose members can decide for the workers
// of a topic and a group. It is not one for all: gateways that share a cluster
// need not scale the same topics, and who does not scale one must not hold it.
func LeaseGroup(topic, group string) string { return LeaseTopic + "/" + topic + "/" + group }

// LeaseConfig says for what a lease is.
type LeaseConfig struct {
	Broker *broker.Client
	// Topic and Group are those whose workers the holder decides about.
	Topic, Group string
	// Create has LeaseTopic be made if it is missing, with so many copies; 0
	// leaves their number to the broker.
	Create      bool
	Replication int
	Logger      *zap.Logger
}

// GroupLease is a Lease among the processes that want one for the same topic
// and group: they are members of a consumer group on LeaseTopic, and the one that
// has its partition holds the lease.
//
// It does not exclude. A holder is frozen in the middle of an order, another
// takes over, the first one goes on: so orders carry the lease's generation, and
// Held turns false by the monotonic clock some time before another can get it.
type GroupLease struct {
	config LeaseConfig
	cancel context.CancelFunc
	done   chan struct{}

	// fresh says that there is a generation to keep.
	fresh chan struct{}

	mu     sync.Mutex
	member *broker.Membership // nil before the topic is there
	// given says that the group has given the lease to this process, since the
	// generation since.
	given bool
	since int32
	// elsewhere says that the group gave the partition to another member.
	elsewhere bool
	closed    bool

	held    bool // as told last
	changed chan struct{}
	expiry  *time.Timer // looks at the clock again
}

// NewLease begins to take part. It waits for nothing: neither the broker nor the
// topic need be there yet.
func NewLease(c LeaseConfig) *GroupLease {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &GroupLease{
		config: c, cancel: cancel, done: make(chan struct{}),
		fresh: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	l.expiry = time.AfterFunc(time.Hour, l.settle)
	l.expiry.Stop()
	go func() {
		defer close(l.done)
		l.run(ctx)
	}()
	return l
}

// Held tells whether this process holds the lease, and since which generation of
// its group.
func (l *GroupLease) Held() (int32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since, l.holds()
}

// Elsewhere tells whether the lease was given to another member.
func (l *GroupLease) Elsewhere() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.elsewhere
}

// Changed gives a channel that is closed at the next change.
func (l *GroupLease) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Close gives the lease up, for another to take it at once, and waits until the
// group was left.
func (l *GroupLease) Close() {
	l.mu.Lock()
	l.closed = true
	l.lose()
	l.mu.Unlock()
	l.cancel()
	<-l.done
}

// holds reports whether the lease is held, by the clock. The caller holds mu.
func (l *GroupLease) holds() bool {
	return l.given && !l.closed && l.member.Holds()
}

// lose takes note that the lease is another's. The caller holds mu.
func (l *GroupLease) lose() {
	l.given = false
	l.setElsewhere(true)
	l.told()
}

// setElsewhere takes note of whether the lease is another's. The caller holds mu.
func (l *GroupLease) setElsewhere(elsewhere bool) {
	if l.elsewhere != elsewhere {
		l.elsewhere = elsewhere
		l.news()
	}
}

// settle tells what the clock has changed.
func (l *GroupLease) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told()
}

// told tells whether the lease is held, where that has changed. The caller holds mu.
func (l *GroupLease) told() {
	held := l.holds()
	switch {
	case held:
		l.expiry.Reset(time.Until(l.member.HoldsUntil()))
	case l.given && !l.closed:
		l.expiry.Reset(leaseLook)
	default:
		l.expiry.Stop()
	}
	if held != l.held {
		l.held = held
		l.news()
	}
}

// news wakes those who wait for a change. The caller holds mu.
func (l *GroupLease) news() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// run takes part until the context ends.
func (l *GroupLease) run(ctx context.Context) {
	if !l.await(ctx) {
		return
	}
	member := l.join()
	defer member.Leave(ctx)
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.fresh:
		case <-retry.C:
		}
		if !l.keep(ctx, member) {
			retry.Reset(leaseHeartbeat)
		}
	}
}

func (l *GroupLease) join() *broker.Membership {
	l.mu.Lock() // for the callbacks to wait
	defer l.mu.Unlock()
	l.member = l.config.Broker.JoinGroup(broker.GroupConfig{
		Group: LeaseGroup(l.config.Topic, l.config.Group), Topic: LeaseTopic,
		Session: leaseSession, Rebalance: leaseRebalance, Heartbeat: leaseHeartbeat,
		Margin: leaseMargin, Leave: leaseLeave, Logger: l.config.Logger,
		Assigned: l.assign, Revoke: l.revoke,
	})
	return l.member
}

// await waits until the topic is there, and makes it if it may.
func (l *GroupLease) await(ctx context.Context) bool {
	var pause backoff.Backoff
	for {
		err := l.topic(ctx)
		if err == nil {
			return true
		}
		if pause.Failures() == 0 && ctx.Err() == nil {
			l.config.Logger.Warn("topic of leases is not there yet", zap.String("topic", LeaseTopic), zap.Error(err))
		}
		if !pause.Sleep(ctx) {
			return false
		}
	}
}

func (l *GroupLease) topic(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaseSession)
	defer cancel()
	if !l.config.Create {
		_, err := l.config.Broker.Topic(ctx, LeaseTopic)
		return err
	}
	_, err := l.config.Broker.Ensure(ctx, broker.TopicSpec{Name: LeaseTopic, Partitions: 1, Replication: l.config.Replication})
	return err
}

// assign takes a new assignment. While others come and go the lease stays where
// it is, without an interruption, and since the same generation.
func (l *GroupLease) assign(a broker.Assignment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if !slices.Contains(a.Owned, leasePartition) {
		l.lose()
		return
	}
	if slices.Contains(a.Gained, leasePartition) || slices.Contains(a.Regained, leasePartition) {
		l.since = a.Generation // else nobody else can have had it in between
	}
	l.given = true
	l.setElsewhere(false)
	l.told()
	select {
	case l.fresh <- struct{}{}:
	default:
	}
}

// revoke gives the lease up to another member.
func (l *GroupLease) revoke(_ context.Context, partitions []int32) {
	if slices.Contains(partitions, leasePartition) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lose()
	}
}

// keep commits an offset, once a generation, and reports whether there is nothing
// more to do. A group without commits is forgotten with its last member, and the
// generations of the next one start anew: those who refuse old orders would refuse
// all of its.
func (l *GroupLease) keep(ctx context.Context, member *broker.Membership) bool {
	l.mu.Lock()
	given := l.given
	l.mu.Unlock()
	if !given {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	err := member.Commit(ctx, []broker.CommitOffset{{Partition: leasePartition}})
	if err != nil {
		l.config.Logger.Debug("generation of a lease not kept", zap.String("group", LeaseGroup(l.config.Topic, l.config.Group)), zap.Error(err))
	}
	return err == nil
}

// Interface guards
var _ Lease = (*GroupLease)(nil)
