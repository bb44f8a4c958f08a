package hub

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// A gateway that dies gives up its home partitions within sessionTimeout.
	// Its streams do not wait for that, since any gateway serves them; only the
	// tokens of the others name partitions that nobody tails in the meantime.
	sessionTimeout   = 10 * time.Second
	rebalanceTimeout = 30 * time.Second
	heartbeat        = 3 * time.Second

	// commitInterval is how often positions are committed, and the topic is
	// looked at for growth.
	commitInterval = 5 * time.Second

	// leaveTimeout bounds how long leaving the group may take.
	leaveTimeout = 3 * time.Second
)

// GroupOf names the consumer group of the gateways that share a reply topic. A
// group is about one topic: two reply topics under one name would take each
// other's members for their own.
func GroupOf(topic string) string { return "osmosis.gateways." + topic }

// home is this gateway's membership in the consumer group on the reply topic.
// The group shares the partitions out among the gateways; those that fall to
// this one are its home partitions, and the tokens it issues name them.
//
// Membership decides nothing else. While it is interrupted, also while the
// group's broker is down, the last assignment stays in force: two gateways that
// name the same partition for a while do no harm.
type home struct {
	config     homeConfig
	partitions atomic.Pointer[[]int32]
	// count is how many partitions were shared out, or will be.
	count atomic.Int32

	mu          sync.Mutex
	member      *broker.Membership // nil before the topic is there
	fingerprint string
	// differing are the fingerprints as they were found to differ last.
	differing []string
}

type homeConfig struct {
	broker *broker.Client
	topic  string
	group  string // empty: GroupOf(topic)
	log    *zap.Logger
	// floors knows when the topic is there.
	floors *floors
	// positions gives the next offset to read of every tailed partition of the
	// topic. They are committed so that lag tools show a living group; nobody
	// starts from them.
	positions func() map[int32]int64
	// onHome is told each new assignment, sorted, maybe empty. It is called
	// from one goroutine at a time, and its argument may be kept but not changed.
	onHome func([]int32)
	// fingerprint says which keys open tokens here; see Config.Fingerprint.
	fingerprint string
}

func newHome(c homeConfig) *home {
	if c.group == "" {
		c.group = GroupOf(c.topic)
	}
	return &home{config: c, fingerprint: c.fingerprint}
}

// owned gives the home partitions, sorted; none before the group was joined.
// The caller may not change it.
func (h *home) owned() []int32 {
	if p := h.partitions.Load(); p != nil {
		return *p
	}
	return nil
}

// run is a member of the group until the context ends. It joins once the topic
// is there. Meanwhile it commits positions and watches for growth.
func (h *home) run(ctx context.Context) {
	if h.config.floors.await(ctx) != nil {
		return
	}
	member := h.join()
	// The positions need no last commit, and there is nothing else to give up.
	defer member.Leave(ctx)
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.commit(ctx, member)
		h.watch(ctx, member)
	}
}

func (h *home) join() *broker.Membership {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.member = h.config.broker.JoinGroup(broker.GroupConfig{
		Group: h.config.group, Topic: h.config.topic,
		Session: sessionTimeout, Rebalance: rebalanceTimeout, Heartbeat: heartbeat,
		Leave: leaveTimeout, Fingerprint: h.fingerprint, Logger: h.config.log,
		Assigned: h.assign,
	})
	return h.member
}

// assign makes the partitions of an assignment the home partitions.
func (h *home) assign(a broker.Assignment) {
	h.count.Store(a.Topic.Partitions())
	h.partitions.Store(&a.Owned)
	h.config.log.Info("home partitions",
		zap.String("group", h.config.group), zap.Int32("generation", a.Generation), zap.Int32s("partitions", a.Owned))
	h.config.onHome(a.Owned)
	h.compare(a.Fingerprints)
}

// setFingerprint changes the fingerprint that is compared among the gateways.
func (h *home) setFingerprint(fingerprint string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fingerprint = fingerprint
	if h.member != nil {
		h.member.SetFingerprint(fingerprint)
	}
}

// compare tells, once each time that it changes, that gateways of this group
// have keys that do not open each other's tokens.
func (h *home) compare(fingerprints []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if openEachOther(fingerprints) {
		h.differing = nil
		return
	}
	if slices.Equal(h.differing, fingerprints) {
		return
	}
	h.differing = fingerprints
	h.config.log.Error("gateways of this group have different token keys, so each answers 404 for the streams of another: give all of them the same `token { key … }`, or a storage in common",
		zap.String("group", h.config.group), zap.Strings("keys", fingerprints))
}

// watch looks whether the topic has another number of partitions than were
// shared out, and has them shared out then. Until then new ones are nobody's
// home, and no token names them.
func (h *home) watch(ctx context.Context, member *broker.Membership) {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	t, err := h.config.broker.Topic(ctx, h.config.topic)
	before, now := h.count.Load(), t.Partitions()
	if err != nil || before == 0 || now == before || !h.count.CompareAndSwap(before, now) {
		return
	}
	h.config.log.Info("reply topic has another number of partitions",
		zap.String("topic", h.config.topic), zap.Int32("before", before), zap.Int32("now", now))
	h.config.floors.lookNow()
	member.Rejoin()
}

// commit commits the positions of the home partitions. A refusal is no news: who
// is no member any more is told of it elsewhere.
func (h *home) commit(ctx context.Context, member *broker.Membership) {
	var offsets []broker.CommitOffset
	positions := h.config.positions()
	for _, p := range h.owned() {
		if at, ok := positions[p]; ok {
			offsets = append(offsets, broker.CommitOffset{Partition: p, Offset: at})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	if err := member.Commit(ctx, offsets); err != nil {
		h.config.log.Debug("positions not committed", zap.String("group", h.config.group), zap.Error(err))
	}
}
