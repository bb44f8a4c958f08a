package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// lead shares the partitions out among the members, because this one leads the
// generation.
func (m *Membership) lead(ctx context.Context, members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	byTopic := make(map[string][]claimant)
	var fingerprints []string
	for _, told := range members {
		s, err := decodeSubscription(told.ProtocolMetadata)
		if err != nil {
			m.log.Error("member of the consumer group not understood, so it gets no partition", zap.String("member", told.MemberID), zap.Error(err))
			continue
		}
		byTopic[s.topic] = append(byTopic[s.topic], claimant{
			id: told.MemberID, owned: s.owned, generation: s.generation, interrupted: s.interrupted,
		})
		fingerprints = append(fingerprints, s.fingerprint)
	}
	fingerprints = distinct(fingerprints)
	fingerprints = fingerprints[:min(len(fingerprints), maxFingerprints)]

	grants := make(map[string]*grant, len(members))
	moving := false
	for topic, partitions := range m.count(ctx, byTopic) {
		claimants := byTopic[topic]
		for i, p := range share(partitions, claimants) {
			moving = moving || len(p.revoke) > 0
			grants[claimants[i].id] = &grant{
				topic: topic, owned: p.owned, revoke: p.revoke, partitions: partitions, fingerprints: fingerprints,
			}
		}
	}
	shares := make([]kmsg.SyncGroupRequestGroupAssignment, 0, len(members))
	for _, told := range members {
		g := grants[told.MemberID]
		if g == nil {
			g = &grant{fingerprints: fingerprints}
		}
		g.moving = moving
		shares = append(shares, kmsg.SyncGroupRequestGroupAssignment{MemberID: told.MemberID, MemberAssignment: g.encode()})
	}
	return shares
}

// count asks how many partitions the members' topics have. For a topic that is
// gone, or that no broker can be asked about, it takes what is known of it: its
// partitions stay with those who have them.
func (m *Membership) count(ctx context.Context, members map[string][]claimant) map[string]int32 {
	counts := make(map[string]int32, len(members))
	var names []string
	for topic, claimants := range members {
		names = append(names, topic)
		for _, c := range claimants {
			if n := len(c.owned); n > 0 {
				counts[topic] = max(counts[topic], min(c.owned[n-1], maxCounted)+1)
			}
		}
	}
	m.mu.Lock()
	counts[m.config.Topic] = max(counts[m.config.Topic], m.topic.Partitions())
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.patience())
	defer cancel()
	described, err := m.client.Topics(ctx, names)
	if err != nil {
		m.log.Debug("partitions shared out as they were known", zap.Error(err))
	}
	for _, d := range described {
		if d.Err == nil {
			counts[d.Name] = d.Partitions()
		}
	}
	return counts
}

// maxCounted bounds the partitions of a topic of which only claims are known,
// which are foreign bytes.
const maxCounted = 1 << 20
