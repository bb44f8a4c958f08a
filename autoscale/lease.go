package autoscale

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
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
	leaseRebalance = 10 * time.Second
	leaseHeartbeat = time.Second

	// leaseMargin is how long before the group may give a lease to another its
	// holder stops: what it is just doing has to end by then.
	leaseMargin = 2 * time.Second

	// leaseLeave is how long leaving the group may take.
	leaseLeave = 3 * time.Second

	// leaseAnswer is how long a broker may take to answer.
	leaseAnswer = 3 * time.Second
)

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

	mu sync.Mutex
	// since is the generation of the group in which the lease was taken, until
	// the end of what the last good heartbeat has brought.
	since int32
	until time.Time
	// elsewhere says that the group gave the partition to another member.
	elsewhere bool
	closed    bool
	// member is whom heartbeats are sent for; stop ends them.
	member *kafka.Generation
	stop   context.CancelFunc

	held    bool // as told last
	changed chan struct{}
	expiry  *time.Timer // settles at until

	beating sync.WaitGroup
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
		stop: func() {}, changed: make(chan struct{}),
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
	l.lose(true)
	l.mu.Unlock()
	l.cancel()
	<-l.done
	l.beating.Wait()
}

// holds tells whether the lease is held by the clock. The caller holds mu.
func (l *GroupLease) holds() bool { return !l.closed && time.Now().Before(l.until) }

// lose ends the hold; to another, if that is known. The caller holds mu.
func (l *GroupLease) lose(elsewhere bool) {
	l.stop()
	l.member, l.until = nil, time.Time{}
	if l.elsewhere != elsewhere {
		l.elsewhere = elsewhere
		l.news()
	}
	l.told()
}

// settle tells that the clock has ended the hold.
func (l *GroupLease) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told()
}

// told tells whether the lease is held, where that has changed. The caller holds mu.
func (l *GroupLease) told() {
	held := l.holds()
	if held {
		l.expiry.Reset(time.Until(l.until))
	} else {
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
	l.config.Broker.Member(ctx, broker.LegacyGroup{
		Group: LeaseGroup(l.config.Topic, l.config.Group), Topic: LeaseTopic,
		Session: leaseSession, Rebalance: leaseRebalance, Heartbeat: leaseHeartbeat,
		Balancer: leaseBalancer{l}, Leave: leaseLeave, Logger: l.config.Logger,
	}, func(g *kafka.Generation) { g.Start(func(ctx context.Context) { l.serve(ctx, g) }) })
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

// serve is this member's part in one generation of the group.
//
// When the generation ends the lease stays where it is, and the heartbeats go
// on: a process that joins the group ends one, and kafka-go may come back under
// another name after a failure, which must not stop anybody's workers. As long as
// the group answers that it shares out partitions anew, it has not. The next
// generation says who has the lease then.
func (l *GroupLease) serve(ctx context.Context, g *kafka.Generation) {
	if slices.ContainsFunc(g.Assignments[LeaseTopic], func(a kafka.PartitionAssignment) bool { return a.ID == 0 }) {
		l.take(g)
	} else {
		l.mu.Lock()
		l.lose(true)
		l.mu.Unlock()
	}
	<-ctx.Done()
}

// take begins to send heartbeats for a generation in which the lease is this
// process'. It is held from the first good one on: the process may have been
// frozen since it has joined.
func (l *GroupLease) take(g *kafka.Generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.stop()
	ctx, stop := context.WithCancel(context.Background())
	l.member, l.stop = g, stop
	if l.elsewhere {
		l.elsewhere = false
		l.news()
	}
	l.beating.Go(func() { l.beat(ctx, g) })
}

// beat sends heartbeats until the context ends, or the group knows of no such
// member in such a generation any more.
func (l *GroupLease) beat(ctx context.Context, g *kafka.Generation) {
	tick := time.NewTicker(leaseHeartbeat)
	defer tick.Stop()
	kept := false
	for {
		sent := time.Now()
		err := l.heartbeat(ctx, g)
		switch {
		case err == nil, errors.Is(err, kafka.RebalanceInProgress):
			l.extend(g, sent.Add(leaseSession-leaseMargin))
			if !kept {
				kept = l.keep(ctx, g)
			}
		case errors.Is(err, kafka.IllegalGeneration):
			return // the next one has begun; it says who holds the lease in it
		case errors.Is(err, kafka.UnknownMemberId), errors.Is(err, kafka.FencedInstanceID):
			l.expel(g)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *GroupLease) heartbeat(ctx context.Context, g *kafka.Generation) error {
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	return l.config.Broker.Heartbeat(ctx, g.GroupID, g.ID, g.MemberID)
}

// extend has the lease be held until then.
func (l *GroupLease) extend(g *kafka.Generation, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.member != g {
		return
	}
	if !l.holds() {
		l.since = g.ID // else nobody else can have had it in between
	}
	l.until = until
	l.told()
}

// expel ends the hold of a member that was put out of the group.
func (l *GroupLease) expel(g *kafka.Generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.member == g {
		l.lose(l.elsewhere)
	}
}

// keep commits an offset, once a generation, and tells whether that worked. A
// group without commits is forgotten with its last member, and the generations
// of the next one start anew: those who refuse old orders would refuse all of its.
func (l *GroupLease) keep(ctx context.Context, g *kafka.Generation) bool {
	ctx, cancel := context.WithTimeout(ctx, leaseAnswer)
	defer cancel()
	answer, err := l.config.Broker.API().OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: g.GroupID, GenerationID: int(g.ID), MemberID: g.MemberID,
		Topics: map[string][]kafka.OffsetCommit{LeaseTopic: {{Partition: 0, Offset: 0}}},
	})
	if err == nil {
		for _, p := range answer.Topics[LeaseTopic] {
			err = errors.Join(err, p.Error)
		}
	}
	if err != nil {
		l.config.Logger.Debug("generation of a lease not kept", zap.String("group", g.GroupID), zap.Error(err))
	}
	return err == nil
}

// Interface guards
var _ Lease = (*GroupLease)(nil)
