package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// ask sends a request to the group's coordinator. Any failure has the coordinator
// be looked up again before the next request. The request ends with ctx, and its
// connection with it.
func (m *Membership) ask(ctx context.Context, timeout time.Duration, r kmsg.Request, ours span) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// The request may have to wait for long, but not what it takes to send it.
	soon, done := context.WithTimeout(ctx, m.patience())
	defer done()
	coordinator, err := m.findCoordinator(soon)
	if err != nil {
		return nil, err
	}
	version, err := m.client.version(soon, coordinator, r.Key(), ours)
	if err == nil {
		r.SetVersion(version)
		var answer kmsg.Response
		answer, err = m.client.askRouted(ctx, coordinator, r, func(e *exchange) protocol.Message {
			e.until = ctx
			return e
		})
		if err == nil {
			return answer, nil
		}
	}
	m.forgetCoordinator(coordinator)
	return nil, err
}

// findCoordinator gives the broker that coordinates the group. kafka-go's
// Transport would ask for it before every request, and take the answer that
// there is none for any broker.
func (m *Membership) findCoordinator(ctx context.Context) (int32, error) {
	m.mu.Lock()
	known := m.coordinator
	m.mu.Unlock()
	if known >= 0 {
		return known, nil
	}
	found, err := m.client.Coordinators(ctx, []string{m.config.Group})
	coordinator, ok := found[m.config.Group]
	switch {
	case ok && coordinator >= 0:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.coordinator = coordinator
		return coordinator, nil
	case err == nil:
		err = fmt.Errorf("find the coordinator of group %q: %w", m.config.Group, kafka.GroupCoordinatorNotAvailable)
	}
	return 0, err
}

func (m *Membership) forgetCoordinator(coordinator int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.coordinator == coordinator {
		m.coordinator = -1
	}
}

// answered turns the error code of an answer into an error. One that says that
// the coordinator is elsewhere, or not there yet, has it be looked up again.
func (m *Membership) answered(r kmsg.Request, code int16) error {
	err := failure(code)
	switch {
	case err == nil:
		return nil
	case isAny(err, kafka.NotCoordinatorForGroup, kafka.GroupCoordinatorNotAvailable):
		m.mu.Lock()
		m.coordinator = -1
		m.mu.Unlock()
	}
	return fmt.Errorf("%s: %w", kmsg.NameForKey(r.Key()), err)
}

// patience is how long an answer may take that a coordinator gives at once. Some
// of them fit into a session.
func (m *Membership) patience() time.Duration {
	return min(max(m.config.Session/4, time.Second), 3*time.Second)
}

// heartbeat says that the member is there. The answers nil and
// kafka.RebalanceInProgress mean that the coordinator knows it.
func (m *Membership) heartbeat(ctx context.Context, id string, generation int32) error {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.MemberID, r.Generation = m.config.Group, id, generation
	answer, err := m.ask(ctx, m.patience(), r, heartbeatVersions)
	if err != nil {
		return err
	}
	return m.answered(r, answer.(*kmsg.HeartbeatResponse).ErrorCode)
}

// joinGroup asks to be in the group's next generation. The answer comes when all
// members have asked.
func (m *Membership) joinGroup(ctx context.Context, timeout time.Duration, id, why string, metadata []byte) (*kmsg.JoinGroupResponse, error) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.ProtocolType = m.config.Group, id, protocolType
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = millis(m.config.Session), millis(m.config.Rebalance)
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: groupProtocol, Metadata: metadata}}
	if why != "" {
		r.Reason = &why
	}
	answer, err := m.ask(ctx, timeout, r, joinVersions)
	if err != nil {
		return nil, err
	}
	joined := answer.(*kmsg.JoinGroupResponse)
	return joined, m.answered(r, joined.ErrorCode)
}

// syncGroup asks for what the leader gives to this member, and has the leader
// say it.
func (m *Membership) syncGroup(ctx context.Context, timeout time.Duration, id string, generation int32, given []kmsg.SyncGroupRequestGroupAssignment) ([]byte, error) {
	kind, name := protocolType, groupProtocol
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.MemberID, r.Generation = m.config.Group, id, generation
	r.ProtocolType, r.Protocol = &kind, &name
	r.GroupAssignment = given
	answer, err := m.ask(ctx, timeout, r, syncVersions)
	if err != nil {
		return nil, err
	}
	synced := answer.(*kmsg.SyncGroupResponse)
	return synced.MemberAssignment, m.answered(r, synced.ErrorCode)
}

// leaveGroup takes the member out of the group, so that others need not wait for
// the end of its session. It tries until ctx ends.
func (m *Membership) leaveGroup(ctx context.Context, id string) error {
	for {
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Group, r.MemberID = m.config.Group, id // to version 2
		why := "the gateway leaves"
		r.Members = []kmsg.LeaveGroupRequestMember{{MemberID: id, Reason: &why}}
		answer, err := m.ask(ctx, m.patience(), r, leaveVersions)
		if err == nil {
			left := answer.(*kmsg.LeaveGroupResponse)
			err = m.answered(r, left.ErrorCode)
			for _, told := range left.Members {
				err = errors.Join(err, m.answered(r, told.ErrorCode))
			}
		}
		if err == nil || unknownMember(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

// commit sends one OffsetCommit. The answer has no error of the whole but one for
// each partition.
func (m *Membership) commit(ctx context.Context, id string, generation int32, offsets []CommitOffset) error {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Group, r.MemberID, r.Generation = m.config.Group, id, generation
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = m.config.Topic
	for _, o := range offsets {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = o.Partition, o.Offset, &o.Metadata
		topic.Partitions = append(topic.Partitions, p)
	}
	r.Topics = []kmsg.OffsetCommitRequestTopic{topic}
	answer, err := m.ask(ctx, requestTimeout, r, commitVersions)
	if err != nil {
		return err
	}
	missing := len(offsets)
	for _, t := range answer.(*kmsg.OffsetCommitResponse).Topics {
		for _, p := range t.Partitions {
			missing--
			if failed := m.answered(r, p.ErrorCode); failed != nil {
				err = errors.Join(err, fmt.Errorf("partition %d: %w", p.Partition, failed))
			}
		}
	}
	if err == nil && missing > 0 {
		err = fmt.Errorf("OffsetCommit: %d partitions are missing from the answer", missing)
	}
	return err
}

// unknownMember reports whether the coordinator has said that it does not know
// the member. The embedded broker says of a group that it does not know what
// Kafka says of the member.
func unknownMember(err error) bool {
	return isAny(err, kafka.UnknownMemberId, kafka.FencedInstanceID, kafka.GroupIdNotFound)
}

// notNow reports whether an error is one of a coordinator that is on the move or
// out of reach, and not a refusal.
func notNow(err error) bool {
	var code kafka.Error
	return !errors.As(err, &code) || isAny(err,
		kafka.NotCoordinatorForGroup, kafka.GroupCoordinatorNotAvailable, kafka.GroupLoadInProgress,
		kafka.BrokerNotAvailable, kafka.RequestTimedOut, kafka.NetworkException)
}

func isAny(err error, codes ...kafka.Error) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// failed takes note of a request that was not answered, or by a coordinator that
// is on the move. A single one is no news: the next finds another connection.
func (m *Membership) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures++
	const news = 2
	if m.failures == news {
		m.log.Warn("consumer group out of reach", zap.Error(err))
	}
}

// refusedEvery is how often a group that refuses the member is told.
const refusedEvery = time.Minute

// refuse tells that the group does not take the member, and what to do.
func (m *Membership) refuse(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.refused.IsZero() && time.Since(m.refused) < refusedEvery {
		return
	}
	m.refused = time.Now()
	if isAny(err, kafka.InconsistentGroupProtocol) {
		err = fmt.Errorf("group %q has members of another kind, which share out partitions in another way: stop them, or name another group: %w", m.config.Group, err)
	}
	m.log.Error("consumer group refuses this member", zap.Error(err))
}
