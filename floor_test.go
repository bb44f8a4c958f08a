package osmosis

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A token's floor is one that was seen before its request was first produced, and
// stays so however often that is tried: a worker may have answered before the
// gateway learns that the broker has the request.
func TestFloorIsOlderThanTheRequest(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("before")).want(t, 202)
		var tries atomic.Int64
		s.onRequests(func(q *kmsg.ProduceRequest) (kmsg.Response, bool) {
			// Replies come while the request is on its way, and the hub sees them.
			s.cluster.SleepControl(func() {
				s.put(record.Reply{StreamID: "another"}.Record())
				<-time.After(time.Second)
			})
			if tries.Add(1) == 1 {
				return refusing(kafka.NotEnoughReplicas)(q)
			}
			return nil, false
		})
		location := s.send(s.post("order")).want(t, 202).Header.Get("Location")
		claims, err := s.app.keys.Open(strings.TrimPrefix(location, defaultStreams+"/"))
		if err != nil || claims.Floor != 0 || tries.Load() != 2 {
			t.Errorf("floor %d after %d tries, %v; the first reply came after the first try, and lies at 0", claims.Floor, tries.Load(), err)
		}
		place, err := s.app.inside.hub.Place(t.Context())
		if err != nil || place.Floor == 0 {
			t.Errorf("the hub has not seen the replies: %+v, %v", place, err)
		}
	})
}
