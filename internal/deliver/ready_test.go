package deliver

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker may not know yet that it leads a partition when the group has shared
// out a topic that was just made. Its partitions are asked for again then, though
// the metadata say of their leaders what they said before.
func TestLeaderThatDoesNotKnowYet(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var asked atomic.Int32
		r.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			if asked.Add(1) > 3 {
				return nil, nil, false
			}
			r.cluster.KeepControl()
			q := req.(*kmsg.ListOffsetsRequest)
			a := q.ResponseKind().(*kmsg.ListOffsetsResponse)
			for _, qt := range q.Topics {
				at := kmsg.NewListOffsetsResponseTopic()
				at.Topic = qt.Topic
				for _, qp := range qt.Partitions {
					ap := kmsg.NewListOffsetsResponseTopicPartition()
					ap.Partition, ap.ErrorCode = qp.Partition, kerr.NotLeaderForPartition.Code
					at.Partitions = append(at.Partitions, ap)
				}
				a.Topics = append(a.Topics, at)
			}
			return a, nil, true
		})
		r.deliver(options(echo))
		r.send(2, keyless)
		r.done(2)
	})
}

// Partitions that a member has go on while it finds out what was done in those that
// it gets.
func TestPartitionsThatComeHoldUpNoOthers(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(echo))
		r.send(1, keyless)
		r.want("s0", "200 0")
		held, release := make(chan struct{}, 1), make(chan struct{})
		r.cluster.ControlKey(int16(kmsg.ListOffsets), func(req kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			for _, topic := range req.(*kmsg.ListOffsetsRequest).Topics {
				if topic.Topic == testTopic && topic.Partitions[0].Partition == 1 {
					r.cluster.SleepControl(func() {
						signal(held)
						<-release
					})
				}
			}
			return nil, nil, false
		})
		answer, err := r.client.API().CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: testTopic, Count: 2}},
		})
		if err != nil || answer.Errors[testTopic] != nil {
			t.Fatal(err, answer.Errors)
		}
		<-held
		for p, id := range []string{"old", "new"} {
			if _, err := r.put(t.Context(), testTopic, int32(p), r.request(id, "", id)); err != nil {
				t.Fatal(err)
			}
		}
		pass(2 * time.Second) // less than a request may take that is not answered
		if told := r.replies(); fmt.Sprint(told["old"]) != "[200 old]" || told["new"] != nil {
			t.Errorf("%v", told)
		}
		close(release)
		r.want("new", "200 new")
	})
}
