package broker

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"
)

// joinBackoff is kafka-go's pause after it failed to join a group.
const joinBackoff = time.Second

// LegacyGroup says how to be a member of a consumer group on one topic through
// kafka-go, which is what JoinGroup replaces.
type LegacyGroup struct {
	Group, Topic string
	// Session is how long the group keeps the place of a member that says
	// nothing, Rebalance how long it waits for members when it shares out
	// partitions anew. Heartbeat is how often a member says that it is there.
	Session, Rebalance, Heartbeat time.Duration
	// Leave is how long leaving may take until the connections are cut.
	Leave time.Duration
	// Logger is told when the group is out of reach.
	Logger *zap.Logger
}

// Member is a member of a group until ctx ends, and leaves it then, so that
// others take over at once. Each generation is handed to begin.
//
// Call it when the topic is there: kafka-go's members ask for a topic's partitions
// with leave to create it, and a broker that does so makes it with its own
// defaults. Its watcher of partitions does the same, so it is off: who needs to
// know of growth looks for it.
func (c *Client) Member(ctx context.Context, m LegacyGroup, begin func(*kafka.Generation)) {
	config := c.Group()
	config.ID = m.Group
	config.Topics = []string{m.Topic}
	config.SessionTimeout, config.RebalanceTimeout, config.HeartbeatInterval = m.Session, m.Rebalance, m.Heartbeat
	config.JoinGroupBackoff = joinBackoff
	config.WatchPartitionChanges = false
	wires := NewWires(config.Dialer.DialFunc)
	config.Dialer.DialFunc = wires.Dial
	group, err := kafka.NewConsumerGroup(config)
	if err != nil {
		m.Logger.Error("consumer group not joined", zap.String("group", m.Group), zap.Error(err)) // wrong configuration, ours
		return
	}
	// kafka-go may be anywhere in a join or a rebalance, which waits for brokers
	// and for the slowest member; so after a while its connections are cut, and
	// the broker finds out by the session's end.
	defer func() {
		cut := time.AfterFunc(m.Leave, wires.Cut)
		defer cut.Stop()
		_ = group.Close() // always nil
	}()
	lost := false
	for {
		g, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, kafka.RebalanceInProgress):
			continue // the others are in the middle of one; kafka-go joins again
		case err != nil:
			level := zap.DebugLevel
			if !lost {
				level, lost = zap.WarnLevel, true
			}
			m.Logger.Log(level, "consumer group out of reach", zap.String("group", m.Group), zap.Error(err))
			continue // kafka-go pauses before it tries again
		}
		lost = false
		begin(g)
	}
}
