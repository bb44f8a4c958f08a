package hub

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerByName has the leaders say for a while that the logs begin at 40 and end
// at 50, as they do in a life of the topic that is over.
func (c *gatewayCluster) answerByName(stale *atomic.Bool) {
	c.ControlKey(int16(kmsg.ListOffsets), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !stale.Load() {
			return nil, nil, false
		}
		asked := q.(*kmsg.ListOffsetsRequest).Topics[0]
		of := kmsg.NewListOffsetsResponseTopic()
		of.Topic = asked.Topic
		for _, p := range asked.Partitions {
			at := kmsg.NewListOffsetsResponseTopicPartition()
			at.Partition, at.Offset = p.Partition, 50
			if p.Timestamp == -2 {
				at.Offset = 40
			}
			of.Partitions = append(of.Partitions, at)
		}
		answer := q.ResponseKind().(*kmsg.ListOffsetsResponse)
		answer.Topics = append(answer.Topics, of)
		return answer, nil, true
	})
}

// refuseIDs has the leaders say for a while that they do not know the topic's id.
func (c *gatewayCluster) refuseIDs(stale *atomic.Bool) {
	c.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !stale.Load() {
			return nil, nil, false
		}
		answer := q.ResponseKind().(*kmsg.FetchResponse)
		for _, asked := range q.(*kmsg.FetchRequest).Topics {
			of := kmsg.NewFetchResponseTopic()
			of.TopicID = asked.TopicID
			for _, p := range asked.Partitions {
				refused := kmsg.NewFetchResponseTopicPartition()
				refused.Partition, refused.ErrorCode = p.Partition, kerr.UnknownTopicID.Code
				of.Partitions = append(of.Partitions, refused)
			}
			answer.Topics = append(answer.Topics, of)
		}
		return answer, nil, true
	})
}

// A leader that has not heard that the topic was made anew tells nobody's floor
// and nobody's end of the log.
func TestLeaderThatHasNotHeard(t *testing.T) {
	bubble(t, "when the gateway starts", func(t *testing.T) {
		r := newRig(t, 1)
		var stale atomic.Bool
		stale.Store(true)
		r.answerByName(&stale)
		r.refuseIDs(&stale)
		r.hub.Start()
		sub := r.follow(r.stream("a"), nil)
		for range 100 {
			pass(10 * time.Millisecond)
			if s := r.hub.floors.current(); s != nil {
				if at, ok := s.floor(0); ok {
					t.Fatalf("floor %d", at)
				}
			}
		}
		stale.Store(false)
		r.put(0, last("a", "one"))
		expect(t, sub, "reply one @0/0", "end replied-end")
		pass(floorInterval)
		if at, ok := r.hub.floors.current().floor(0); !ok || at > 1 {
			t.Errorf("floor %d, %v", at, ok)
		}
	})

	bubble(t, "when the topic is made anew under it", func(t *testing.T) {
		r := newRig(t, 1)
		r.hub.Start()
		for range 50 {
			r.put(0, part("z", "x"))
		}
		pass(2 * floorInterval)
		var stale atomic.Bool
		stale.Store(true)
		r.answerByName(&stale) // by name only, so that it is known when the life has changed
		r.recreate(1)
		incarnation := r.incarnation()
		for r.hub.floors.current().incarnation != incarnation {
			pass(10 * time.Millisecond)
		}
		// While the floors wait, streams follow what is there.
		sub := r.follow(r.stream("a"), nil)
		for range 90 {
			pass(10 * time.Millisecond)
			if at, ok := r.hub.floors.current().floor(0); ok {
				t.Fatalf("floor %d", at)
			}
		}
		stale.Store(false)
		sub.Close()
		pass(floorSettle)
		if at, ok := r.hub.floors.current().floor(0); !ok || at != 0 {
			t.Errorf("floor %d, %v", at, ok)
		}
	})
}

// What a fetch shows of a new life counts only when its leaders can have heard
// of it: one by the topic's name may be of the former.
func TestObserveBeforeTheTopicHasSettled(t *testing.T) {
	g := &gateway{floors: newFloors(floorsConfig{})}
	g.floors.adopt(topicOf(1, 1))
	s, _ := g.floors.adopt(topicOf(2, 1))
	g.floors.observe(s.incarnation, 0, 50)
	wantKnown(t, g, unknownFloor)
	s.settled.Store(true)
	g.floors.observe(s.incarnation, 0, 5)
	wantKnown(t, g, 5)
}
