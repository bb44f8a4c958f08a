package hub

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// topicRefresh is how long a change of a topic that no error tells of, which
	// is new partitions, may go unnoticed.
	topicRefresh = 10 * time.Second
	// tailLinger is how long a partition is still read when the last stream has
	// left it, since clients come back.
	tailLinger = time.Minute
)

// topic is a reply topic that streams are read from: the one that new tokens
// name, or another that tokens still name. The hub's lock guards it, but for
// name, stale and version.
type topic struct {
	hub   *Hub
	name  string
	stale chan struct{} // holds one wish to ask the broker anew
	// version changes when subscriptions have to look at the topic again.
	version atomic.Uint64

	known bool
	is    broker.Topic
	// gone is the hub's clock before the question to which a broker said that
	// there is no such topic; 0 while there is one.
	gone          uint64
	partitions    map[int32]*partition
	subscriptions map[*Subscription]struct{}
}

func newTopic(h *Hub, name string) *topic {
	return &topic{
		hub: h, name: name,
		stale:         make(chan struct{}, 1),
		partitions:    make(map[int32]*partition),
		subscriptions: make(map[*Subscription]struct{}),
	}
}

// outdated has the topic asked for again, because a broker refused a request
// that followed what is known of it.
func (t *topic) outdated() {
	select {
	case t.stale <- struct{}{}:
	default:
	}
}

// run keeps what is known of the topic up to date until nobody needs it.
func (t *topic) run(ctx context.Context) {
	var pause backoff.Backoff
	timer := time.NewTimer(topicRefresh)
	defer timer.Stop()
	for !t.end() {
		tick := t.hub.tick()
		is, err := t.ask(ctx)
		complete := false
		switch {
		case err == nil:
			complete = t.apply(is)
		case ctx.Err() != nil:
			return
		case errors.Is(err, kafka.UnknownTopicOrPartition):
			t.miss(tick)
		default:
			level := zap.DebugLevel
			if pause.Failures() == 0 { // the tries that follow say the same
				level = zap.WarnLevel
			}
			t.hub.log.Log(level, "reply topic not reachable", zap.String("topic", t.name), zap.Error(err))
		}
		if complete {
			timer.Reset(topicRefresh)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
				pause.Reset()
				continue
			case <-t.stale:
			}
			if pause.Failures() == 0 { // the first word of a change is acted on at once
				pause.Next()
				continue
			}
		}
		if !pause.Sleep(ctx) {
			return
		}
	}
}

// ask describes the topic. To make it where it is missing is the floors' task.
func (t *topic) ask(ctx context.Context) (broker.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicRefresh)
	defer cancel()
	return t.hub.broker.Topic(ctx, t.name)
}

// apply takes what a broker said. It gives false if a partition that is read
// has no leader, so that the topic must be asked for again soon.
func (t *topic) apply(is broker.Topic) bool {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	recreated := t.known && t.is.ID != is.ID
	if recreated {
		t.hub.log.Warn("reply topic deleted and made again", zap.String("topic", t.name))
		for index, p := range t.partitions {
			p.retire()
			p.assign(nil)
			delete(t.partitions, index)
		}
	}
	changed := recreated || !t.known || t.gone != 0 || is.Partitions() != t.is.Partitions()
	t.is, t.known, t.gone = is, true, 0
	if t.name == t.hub.config.Topic {
		t.applyHome()
	}
	complete := true
	for _, p := range t.partitions {
		complete = t.lead(p) && complete
	}
	if changed {
		t.version.Add(1)
		t.wake()
	}
	t.sweep()
	return complete
}

// lead gives the partition to the tail of its leader, and tells whether there is one.
func (t *topic) lead(p *partition) bool {
	if p.index >= t.is.Partitions() || t.is.Leaders[p.index] < 0 {
		p.assign(nil)
		return false
	}
	p.assign(t.hub.tail(t.is.Leaders[p.index]))
	return true
}

// miss takes a broker's word that there is no such topic. Partitions in memory
// stay: what they hold is true until another topic of that name is there.
func (t *topic) miss(tick uint64) {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	t.gone = tick
	t.wake()
	if t.name == t.hub.config.Topic {
		t.hub.floors.lookNow() // no token may name it any more
	}
}

// wake has all subscriptions of the topic look again. Needs the hub's lock.
func (t *topic) wake() {
	for s := range t.subscriptions {
		s.bell.ring()
	}
}

// partition gives a partition of a known topic, and begins to read it where it
// is new. Needs the hub's lock.
func (t *topic) partition(index int32) *partition {
	p := t.partitions[index]
	if p == nil {
		p = newPartition(t, index)
		t.partitions[index] = p
		if !t.lead(p) {
			t.outdated()
		}
	}
	return p
}

// sweep drops the partitions that nobody has read for a while. Needs the hub's lock.
func (t *topic) sweep() {
	for index, p := range t.partitions {
		if since, idle := p.idleSince(); idle && !p.home && time.Since(since) >= tailLinger {
			p.retire()
			p.assign(nil)
			delete(t.partitions, index)
		}
	}
}

// applyHome marks the home partitions and begins to read them. Needs the hub's lock.
func (t *topic) applyHome() {
	for _, p := range t.partitions {
		if p.home && !t.hub.home[p.index] {
			p.home = false
			p.touch()
		}
	}
	for index := range t.hub.home {
		if t.known && index < t.is.Partitions() {
			t.partition(index).home = true
		}
	}
}

// end forgets the topic if it is one that old tokens named, and nobody reads it any more.
func (t *topic) end() bool {
	t.hub.mu.Lock()
	defer t.hub.mu.Unlock()
	if t.name == t.hub.config.Topic || len(t.subscriptions) > 0 || len(t.partitions) > 0 {
		return false
	}
	delete(t.hub.topics, t.name)
	return true
}

// moved tells whether an error means that the topic must be described again:
// another broker leads the partition, or the topic is not the one it was.
func moved(err error) bool {
	for _, known := range []kafka.Error{
		kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.ReplicaNotAvailable, kafka.BrokerNotAvailable,
		kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.KafkaStorageError,
		kafka.UnknownTopicOrPartition, broker.ErrUnknownTopicID, broker.ErrInconsistentTopicID,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
