package autoscale

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// patience is how long each step of a look waits for brokers.
	lookPatience = 3 * time.Second
	// describeEvery is how old what is known of members may get.
	describeEvery = 10 * time.Second
	// goneAfter is how long a topic that was there must be missing until it
	// counts as one that does not exist. A broker that was just put in the place
	// of another may not have heard of it.
	goneAfter = 5 * time.Minute
)

// topic is what is known of a topic that somebody watches.
type topic struct {
	name    string
	watches []*Watch
	led     broker.Topic // as described last
	text    string       // its incarnation
	ends    []end
	seen    bool      // it was there
	missing time.Time // since when there is none of that name, zero if there is
	gone    bool      // and that counts
	err     error     // why the last look was told nothing
	uneasy  bool      // nobody waits for its records until the next look
}

// end is a partition's log.
type end struct {
	start, end int64 // Unknown if the last look was not told
	ages       ages
}

// group is what is known of a consumer group that somebody watches.
type group struct {
	name        string
	watches     []*Watch
	located     bool
	coordinator int32
	described   time.Time
	stable      bool // assignments stand
	members     int  // Unknown if not told
	err         error
}

// look asks the brokers about some watches, and hands each its measurement.
func (s *Survey) look(watches []*Watch) {
	s.number++
	topics, groups := make(map[*topic]bool), make(map[*group]bool)
	for _, w := range watches {
		topics[w.topic], groups[w.group] = true, true
	}
	s.describe(slices.Collect(maps.Keys(topics)))
	for _, w := range watches {
		w.expect()
	}
	s.locate(groups)
	// Commits first: read after the ends they could be ahead of them.
	s.askCoordinators(groups)
	s.askLeaders(topics)
	if s.ctx.Err() != nil {
		return
	}
	now := time.Now()
	for t := range topics {
		for i := range t.ends {
			if e := &t.ends[i]; e.end >= 0 {
				e.ages.add(e.end, now)
			}
		}
	}
	for _, w := range watches {
		w.read(now)
	}
	s.detail(watches, now)
	for _, w := range watches {
		m := w.measure(now)
		w.report(s.config.Logger, now)
		w.hand(m)
	}
}

// step gives a step of a look its time.
func (s *Survey) step() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, lookPatience)
}

// describe asks for the topics.
func (s *Survey) describe(topics []*topic) {
	ctx, cancel := s.step()
	defer cancel()
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.name
		t.uneasy = false
	}
	told, err := s.config.Broker.Topics(ctx, names)
	now := time.Now()
	for i, t := range topics {
		for j := range t.ends {
			t.ends[j].start, t.ends[j].end = Unknown, Unknown
		}
		if err != nil {
			t.err = err
			continue
		}
		t.described(told[i], now)
	}
}

// described takes in what a broker says of it.
func (t *topic) described(d broker.Described, now time.Time) {
	t.err = d.Err
	switch {
	case errors.Is(d.Err, kafka.UnknownTopicOrPartition):
		if t.missing.IsZero() {
			t.missing = now
		}
		t.gone = !t.seen || now.Sub(t.missing) >= goneAfter
		return
	case d.Err != nil:
		return
	}
	t.missing, t.gone, t.seen = time.Time{}, false, true
	if d.ID != t.led.ID {
		t.ends = nil
		if t.text = ""; d.ID != (broker.TopicID{}) {
			t.text = hex.EncodeToString(d.ID[:])
		}
	}
	t.led = d.Topic
	for len(t.ends) < len(d.Leaders) {
		t.ends = append(t.ends, end{start: Unknown, end: Unknown})
	}
	t.ends = t.ends[:len(d.Leaders)]
}

// locate finds the coordinators of those groups whose are not known.
func (s *Survey) locate(groups map[*group]bool) {
	var names []string
	for g := range groups {
		g.err = nil
		if !g.located {
			names = append(names, g.name)
		}
	}
	if len(names) == 0 {
		return
	}
	ctx, cancel := s.step()
	defer cancel()
	found, err := s.config.Broker.Coordinators(ctx, names)
	for _, name := range names {
		g := s.groups[name]
		if g.coordinator, g.located = found[name]; !g.located {
			g.err = err
		}
	}
}

// askCoordinators asks for the commits of all watches, and for the members of
// those groups for which it is time.
func (s *Survey) askCoordinators(groups map[*group]bool) {
	ctx, cancel := s.step()
	defer cancel()
	commits, members := make(map[int32][]broker.GroupTopics), make(map[int32][]string)
	now := time.Now()
	for g := range groups {
		if !g.located {
			g.members, g.stable = Unknown, false
			continue
		}
		asked := broker.GroupTopics{Group: g.name}
		due := false
		for _, w := range g.watches {
			due = due || w.wantsMembers()
			if len(w.parts) == 0 || slices.ContainsFunc(asked.Topics, func(t broker.TopicPartitions) bool { return t.Topic == w.of.Topic }) {
				continue
			}
			asked.Topics = append(asked.Topics, broker.TopicPartitions{Topic: w.of.Topic, Partitions: numbers(len(w.parts))})
		}
		if len(asked.Topics) > 0 {
			commits[g.coordinator] = append(commits[g.coordinator], asked)
		}
		if due || now.Sub(g.described) >= describeEvery || !g.stable && g.members != 0 {
			members[g.coordinator] = append(members[g.coordinator], g.name)
		}
	}
	var asking sync.WaitGroup
	for coordinator, of := range commits {
		asking.Go(func() {
			s.config.Broker.Commits(ctx, coordinator, of, s.committed, s.uncommitted)
		})
	}
	described := make(map[int32][]broker.DescribedGroup)
	var mu sync.Mutex // guards described
	for coordinator, names := range members {
		asking.Go(func() {
			told := s.config.Broker.Groups(ctx, coordinator, names)
			mu.Lock()
			defer mu.Unlock()
			described[coordinator] = told
		})
	}
	asking.Wait()
	for _, told := range described {
		for _, d := range told {
			if g := s.groups[d.Group]; g != nil {
				g.takeMembers(d)
			}
		}
	}
}

// committed takes in a commit. Only one goroutine comes with those of a group.
func (s *Survey) committed(c broker.Committed) {
	g := s.groups[c.Group]
	if g == nil {
		return
	}
	for _, w := range g.watches {
		if w.of.Topic == c.Topic && c.Partition >= 0 && int(c.Partition) < len(w.parts) {
			p := &w.parts[c.Partition]
			p.committed, p.metadata, p.unread = c.Offset, c.Metadata, false
		}
	}
}

// uncommitted takes in that a group's commits are not told.
func (s *Survey) uncommitted(name string, err error) {
	if g := s.groups[name]; g != nil {
		g.err = err
		g.located = false // another may be its coordinator
	}
}

// takeMembers takes in who is in a group.
func (g *group) takeMembers(d broker.DescribedGroup) {
	g.described = time.Now()
	g.stable, g.members = d.Stable, len(d.Members)
	if d.Err != nil {
		g.stable, g.members = false, Unknown
		g.located = false
		if g.err == nil {
			g.err = d.Err
		}
	}
	for _, w := range g.watches {
		w.assigned(d.Members, g.stable)
	}
}

// askLeaders asks for where the partitions begin and end.
func (s *Survey) askLeaders(topics map[*topic]bool) {
	ctx, cancel := s.step()
	defer cancel()
	led := make(map[int32][]broker.TopicPartitions)
	for t := range topics {
		if t.err != nil {
			continue
		}
		byLeader := make(map[int32][]int32)
		for p, leader := range t.led.Leaders {
			if leader >= 0 {
				byLeader[leader] = append(byLeader[leader], int32(p)) //nolint:gosec // partition numbers are 32 bits
			}
		}
		for leader, partitions := range byLeader {
			led[leader] = append(led[leader], broker.TopicPartitions{Topic: t.name, Partitions: partitions})
		}
	}
	var asking sync.WaitGroup
	for leader, of := range led {
		asking.Go(func() {
			// A partition has one leader here, so that no other goroutine writes to it.
			at := func(set func(e *end, offset int64)) func(string, int32, int64) {
				return func(name string, partition int32, offset int64) {
					t := s.topics[name]
					if t != nil && partition >= 0 && int(partition) < len(t.ends) && t.led.Leaders[partition] == leader {
						set(&t.ends[partition], offset)
					}
				}
			}
			client := s.config.Broker
			err := client.OffsetsLed(ctx, leader, of, broker.LogStart, at(func(e *end, offset int64) { e.start = offset }))
			if err == nil {
				_ = client.OffsetsLed(ctx, leader, of, broker.HighWatermark, at(func(e *end, offset int64) { e.end = offset }))
			}
		})
	}
	asking.Wait()
}

// report logs when it is not known any more what waits, and when it is again, and
// that there is nothing to look at.
func (w *Watch) report(log *zap.Logger, now time.Time) {
	w.miss(log, now)
	unknown := slices.IndexFunc(w.parts, func(p part) bool { return p.lag == Unknown })
	blind := !w.topic.gone && (len(w.parts) == 0 || unknown >= 0)
	if blind == w.blind {
		return
	}
	w.blind = blind
	fields := []zap.Field{zap.String("topic", w.of.Topic), zap.String("group", w.of.Group)}
	if !blind {
		log.Info("known again what waits", fields...)
		return
	}
	why := cmp.Or(w.topic.err, w.group.err)
	if why == nil && unknown >= 0 {
		why = w.unknown(unknown)
	}
	log.Warn("not known what waits", append(fields, zap.Error(why))...)
}

// unknown says why it is not known what waits in a partition.
func (w *Watch) unknown(partition int) error {
	p, e := &w.parts[partition], &w.topic.ends[partition]
	switch {
	case w.topic.led.Leaders[partition] < 0:
		return fmt.Errorf("partition %d has no leader", partition)
	case e.start < 0 || e.end < 0:
		return fmt.Errorf("partition %d: its leader does not tell where it begins and ends", partition)
	case p.unread:
		return fmt.Errorf("partition %d: the group's commit is not told", partition)
	case p.committed > e.end:
		return fmt.Errorf("partition %d ends at %d, and the group has committed %d: the topic was made anew, or has lost records", partition, e.end, p.committed)
	default:
		return fmt.Errorf("partition %d ends at %d, before it did", partition, e.end)
	}
}

// missedAfter is how long a topic may take to be made, beside all else that begins.
const missedAfter = 30 * time.Second

// miss logs that there is no such topic, which looks like one with nothing in it:
// its name may be misspelt.
func (w *Watch) miss(log *zap.Logger, now time.Time) {
	missed := w.topic.gone && now.Sub(w.topic.missing) >= missedAfter
	if missed && !w.missed {
		log.Warn("topic does not exist; scaling when it does", zap.String("topic", w.of.Topic), zap.String("group", w.of.Group))
	}
	w.missed = missed
}

// numbers gives 0 to n-1.
func numbers(n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(i) //nolint:gosec // partition numbers are 32 bits
	}
	return list
}
