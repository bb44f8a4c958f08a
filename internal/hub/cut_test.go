package hub

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// cut has the broker say once that the log is the reader's up to an offset only.
func (r *rig) cut(at int64) {
	r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		asked := q.(*kmsg.FetchRequest).Topics[0]
		if asked.Partitions[0].LastFetchedEpoch < 0 {
			r.KeepControl()
			return nil, nil, false
		}
		answer := q.ResponseKind().(*kmsg.FetchResponse)
		p := kmsg.NewFetchResponseTopicPartition()
		p.Partition = asked.Partitions[0].Partition
		p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = asked.Partitions[0].LastFetchedEpoch, at
		topic := kmsg.NewFetchResponseTopic()
		topic.TopicID, topic.Partitions = asked.TopicID, []kmsg.FetchResponseTopicPartition{p}
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
}

// A log that was cut off and has grown since is longer than what was read of it,
// so only its epochs tell. Those who stand beyond the cut are told, since a reply of
// theirs may be lost, and get what is there now.
func TestLogCutOffAndGrownUnderTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		s := r.stream("a")
		above, idle := r.follow(s, nil), r.follow(r.stream("b"), nil)
		expect(t, above, "caught up")
		expect(t, idle, "caught up")
		r.put(0, part("a", "one"), part("a", "two"))
		expect(t, above, "reply one @0/0", "reply two @0/1")

		r.cut(1)
		time.Sleep(2 * tailMaxWait)
		r.put(0, part("a", "three"), part("b", "x"))
		expect(t, above, "gap truncated", "reply one @0/0", "reply two @0/1", "reply three @0/2")
		expect(t, idle, "gap truncated", "reply x @0/3")
		r.put(0, last("a", "four"))
		expect(t, above, "reply four @0/4", "end replied-end")
	})
}

// cutLog has a partition read so many records and be told that the log is
// another one from an offset on.
func cutLog(t *testing.T, records int, at int64) (*Hub, *partition, []*Subscription) {
	t.Helper()
	h, p := lonePartition(t)
	var subs []*Subscription
	for _, floor := range []int64{0, at, at + 1} {
		sub := h.Follow(Stream{ID: "a", Topic: gatewayTopic, Partitions: 1, Floor: floor, Incarnation: p.incarnation}, nil)
		t.Cleanup(sub.Close)
		subs = append(subs, sub)
		_, _, _ = sub.look()
	}
	from, _ := p.position(time.Now())
	p.take(from, answer(0, make([]record.Reply, records)...), h.tick())
	for _, sub := range subs {
		_, _, _ = sub.look()
	}
	from, _ = p.position(time.Now())
	p.cutOff(from, at)
	return h, p, subs
}

func TestWhoIsCutOff(t *testing.T) {
	h, p, subs := cutLog(t, 5, 2)
	for _, sub := range subs {
		if cut := sub.legs[0].reader.lost(); cut == nil || *cut != 2 {
			t.Errorf("cut at %v", cut)
		}
	}
	if e, ok, err := subs[0].look(); ok || err != nil {
		t.Errorf("%+v %v before the log's ends are known", e, err)
	}
	p.found(0, 9, h.tick())
	for i, floor := range []int64{0, 2, 2} {
		e, _, err := subs[i].look()
		if got := tell(e, err); got != "gap truncated" {
			t.Errorf("%q", got)
		}
		r := &subs[i].legs[0].reader
		if r.next != floor || r.lost() != nil {
			t.Errorf("stream %d goes on at %d instead of %d", i, r.next, floor)
		}
	}
	// What was cut once may be cut again, further down, before anybody looked.
	from, _ := p.position(time.Now())
	p.cutOff(from, 8)
	if subs[0].legs[0].reader.lost() != nil {
		t.Error("a reader below the cut has lost nothing")
	}
}

// A second cut before the readers have looked counts from the lower of both.
func TestCutTwice(t *testing.T) {
	h, p, subs := cutLog(t, 5, 3)
	p.found(0, 9, h.tick())
	from, _ := p.position(time.Now())
	p.cutOff(from, 1)
	if cut := subs[0].legs[0].reader.lost(); cut == nil || *cut != 1 {
		t.Errorf("cut at %v instead of 1", cut)
	}
	p.cutOff(from, 0) // too late: its answer is about the log of before
	if cut := subs[0].legs[0].reader.lost(); *cut != 1 {
		t.Errorf("cut at %d", *cut)
	}
}
