package hub

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// A gateway that dies gives up its home partitions within sessionTimeout.
	// Its streams do not wait for that, since any gateway serves them; only the
	// tokens of the others name partitions that nobody tails in the meantime.
	sessionTimeout   = 10 * time.Second
	rebalanceTimeout = 10 * time.Second
	heartbeat        = 3 * time.Second

	// commitInterval is how often positions are committed, and the topic is
	// looked at for growth.
	commitInterval = 5 * time.Second

	// leaveTimeout bounds how long leaving the group may take before its
	// connections are cut.
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
// Membership decides nothing else. While a generation of the group ends and
// until the next one is known, also while the group's broker is down, the last
// assignment stays in force: two gateways that name the same partition for a
// while do no harm.
type home struct {
	config     homeConfig
	partitions atomic.Pointer[[]int32]
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
}

func newHome(c homeConfig) *home {
	if c.group == "" {
		c.group = GroupOf(c.topic)
	}
	return &home{config: c}
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
// is there.
func (h *home) run(ctx context.Context) {
	if h.config.floors.await(ctx) != nil {
		return
	}
	h.config.broker.Member(ctx, broker.LegacyGroup{
		Group: h.config.group, Topic: h.config.topic,
		Session: sessionTimeout, Rebalance: rebalanceTimeout, Heartbeat: heartbeat,
		Leave: leaveTimeout, Logger: h.config.log,
	}, func(g *kafka.Generation) {
		h.assign(g)
		partitions := h.count(ctx)
		g.Start(func(ctx context.Context) { h.serve(ctx, g, partitions) })
	})
}

// assign makes the generation's partitions the home partitions.
func (h *home) assign(g *kafka.Generation) {
	assigned := g.Assignments[h.config.topic]
	owned := make([]int32, 0, len(assigned))
	for _, a := range assigned {
		owned = append(owned, int32(a.ID))
	}
	slices.Sort(owned)
	h.partitions.Store(&owned)
	h.config.log.Info("home partitions",
		zap.String("group", h.config.group), zap.Int32("generation", g.ID), zap.Int32s("partitions", owned))
	h.config.onHome(owned)
}

// count tells how many partitions the generation shared out: asked for right
// after, since what floors knows may be older.
func (h *home) count(ctx context.Context) int32 {
	n, err := h.ask(ctx)
	if err != nil {
		return int32(len(h.config.floors.current().offsets))
	}
	return n
}

// ask asks for the topic's number of partitions.
func (h *home) ask(ctx context.Context) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	t, err := h.config.broker.Topic(ctx, h.config.topic)
	return t.Partitions(), err
}

// serve commits positions and watches for growth until the generation, and with
// it the context, ends. It does not return because the gateway closes: that
// would end the generation, and kafka-go would join the next one just when it
// is to leave.
//
// After growth it does return, and in the next generation the new partitions
// are shared out. Until then they are nobody's home, and no token names them.
func (h *home) serve(ctx context.Context, g *kafka.Generation, partitions int32) {
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.commit(ctx, g)
		now, err := h.ask(ctx)
		if err == nil && now != partitions {
			h.config.log.Info("reply topic has another number of partitions",
				zap.String("topic", h.config.topic), zap.Int32("before", partitions), zap.Int32("now", now))
			h.config.floors.lookNow()
			return
		}
	}
}

// commit commits the positions of the home partitions. It goes over a connection
// of the client's, so that it never stands in front of a heartbeat. A refusal is
// no news: the heartbeat, which meets it too, ends the generation.
func (h *home) commit(ctx context.Context, g *kafka.Generation) {
	var offsets []kafka.OffsetCommit
	positions := h.config.positions()
	for _, p := range h.owned() {
		if at, ok := positions[p]; ok {
			offsets = append(offsets, kafka.OffsetCommit{Partition: int(p), Offset: at})
		}
	}
	if len(offsets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	answer, err := h.config.broker.API().OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: g.GroupID, GenerationID: int(g.ID), MemberID: g.MemberID,
		Topics: map[string][]kafka.OffsetCommit{h.config.topic: offsets},
	})
	if err == nil {
		for _, p := range answer.Topics[h.config.topic] {
			err = errors.Join(err, p.Error)
		}
	}
	if err != nil {
		h.config.log.Debug("positions not committed", zap.String("group", h.config.group), zap.Error(err))
	}
}
