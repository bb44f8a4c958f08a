package deliver

import (
	"sync/atomic"
	"testing"

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
