package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// The bounds of what members say to each other, which are foreign bytes.
const (
	maxGroupData    = 1 << 20 // of one member
	maxFingerprint  = 248
	maxFingerprints = 16
	// dataVersion comes first in the user data.
	dataVersion = 1
)

var errGroupData = errors.New("it is not written as this version writes it")

// subscription is what a member says when it joins. It is written as consumers
// write it, with the owned partitions of KIP-429, and has what is ours in the
// user data: the version, the flags, and the fingerprint after its length. Later
// versions can add to its end.
type subscription struct {
	topic string
	// owned are the partitions that it claims, sorted, and generation the one
	// in which they were assigned to it.
	owned      []int32
	generation int32
	// interrupted says that the claims are of a former membership of this
	// process, so that another member may have the partitions since.
	interrupted bool
	fingerprint string
}

const flagInterrupted = 1

func (s subscription) encode() []byte {
	data := []byte{dataVersion, 0}
	if s.interrupted {
		data[1] |= flagInterrupted
	}
	data = appendShort(data, s.fingerprint)
	m := kmsg.NewConsumerMemberMetadata()
	m.Version = 2 // 3 adds the rack
	m.Topics = []string{s.topic}
	m.UserData = data
	m.Generation = s.generation
	if len(s.owned) > 0 {
		m.OwnedPartitions = []kmsg.ConsumerMemberMetadataOwnedPartition{{Topic: s.topic, Partitions: s.owned}}
	}
	return m.AppendTo(nil)
}

// decodeSubscription reads what encode has written.
func decodeSubscription(b []byte) (subscription, error) {
	if len(b) > maxGroupData {
		return subscription{}, fmt.Errorf("a subscription of %d bytes: %w", len(b), errGroupData)
	}
	var m kmsg.ConsumerMemberMetadata
	if err := m.ReadFrom(b); err != nil {
		return subscription{}, fmt.Errorf("read a subscription: %w", err)
	}
	data := m.UserData
	if len(m.Topics) != 1 || m.Version < 2 || len(data) < 2 || data[0] != dataVersion {
		return subscription{}, errGroupData
	}
	s := subscription{topic: m.Topics[0], generation: m.Generation, interrupted: data[1]&flagInterrupted != 0}
	var ok bool
	if s.fingerprint, _, ok = takeShort(data[2:]); !ok {
		return subscription{}, errGroupData
	}
	for _, t := range m.OwnedPartitions {
		if t.Topic == s.topic {
			s.owned = append(s.owned, t.Partitions...)
		}
	}
	s.owned = sorted(s.owned)
	return s, nil
}

// grant is what the leader gives a member. It is written as consumers write
// assignments, and has what is ours in the user data: the version, the flags,
// how many partitions were shared out, the partitions to give up after their
// number, and the fingerprints after theirs.
type grant struct {
	topic string
	// owned are the partitions of the member. It is to give up those in revoke,
	// which it has claimed, and to join again then.
	owned, revoke []int32
	// moving says that some member is to give partitions up, so that another
	// round follows soon.
	moving bool
	// partitions is how many the topic had when they were shared out.
	partitions   int32
	fingerprints []string
}

const flagMoving = 1

func (g grant) encode() []byte {
	data := []byte{dataVersion, 0}
	if g.moving {
		data[1] |= flagMoving
	}
	data = binary.AppendUvarint(data, uint64(g.partitions)) //nolint:gosec // never negative
	data = binary.AppendUvarint(data, uint64(len(g.revoke)))
	for _, p := range g.revoke {
		data = binary.AppendUvarint(data, uint64(p)) //nolint:gosec // never negative
	}
	data = binary.AppendUvarint(data, uint64(len(g.fingerprints)))
	for _, f := range g.fingerprints {
		data = appendShort(data, f)
	}
	a := kmsg.ConsumerMemberAssignment{Version: 1, UserData: data}
	if len(g.owned) > 0 {
		a.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: g.topic, Partitions: g.owned}}
	}
	return a.AppendTo(nil)
}

// decodeGrant reads what encode has written for a member of a topic.
func decodeGrant(b []byte, topic string) (grant, error) {
	if len(b) > maxGroupData {
		return grant{}, fmt.Errorf("an assignment of %d bytes: %w", len(b), errGroupData)
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		return grant{}, fmt.Errorf("read an assignment: %w", err)
	}
	data := a.UserData
	if len(data) < 2 || data[0] != dataVersion {
		return grant{}, errGroupData
	}
	g := grant{topic: topic, moving: data[1]&flagMoving != 0}
	data = data[2:]
	ok := true
	number := func(most int) int {
		v, n := binary.Uvarint(data)
		if n <= 0 || v > uint64(most) { //nolint:gosec // never negative
			ok, data = false, nil
			return 0
		}
		data = data[n:]
		return int(v) //nolint:gosec // bounded by most
	}
	const most = 1<<31 - 1
	g.partitions = int32(number(most)) //nolint:gosec // bounded by most
	for range number(len(data)) {
		g.revoke = append(g.revoke, int32(number(most))) //nolint:gosec // bounded by most
	}
	for range number(maxFingerprints) {
		var f string
		var whole bool
		f, data, whole = takeShort(data)
		ok = ok && whole
		g.fingerprints = append(g.fingerprints, f)
	}
	if !ok {
		return grant{}, errGroupData
	}
	for _, t := range a.Topics {
		if t.Topic == topic {
			g.owned = append(g.owned, t.Partitions...)
		}
	}
	g.owned, g.revoke, g.fingerprints = sorted(g.owned), sorted(g.revoke), distinct(g.fingerprints)
	if len(g.owned) > 0 && g.owned[len(g.owned)-1] >= g.partitions {
		return grant{}, errGroupData
	}
	return g, nil
}

// appendShort appends a short text after its length.
func appendShort(b []byte, s string) []byte {
	s = s[:min(len(s), maxFingerprint)]
	return append(append(b, byte(len(s))), s...)
}

// takeShort takes it from the front of b.
func takeShort(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || int(b[0]) > len(b)-1 || b[0] > maxFingerprint {
		return "", nil, false
	}
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:], true
}

// sorted gives partitions in order, each once, without those that are none.
func sorted(partitions []int32) []int32 {
	slices.Sort(partitions)
	partitions = slices.Compact(partitions)
	first, _ := slices.BinarySearch(partitions, 0)
	return partitions[first:]
}

// distinct gives texts in order, each once, without the empty one.
func distinct(texts []string) []string {
	slices.Sort(texts)
	texts = slices.Compact(texts)
	if len(texts) > 0 && texts[0] == "" {
		texts = texts[1:]
	}
	return texts
}
