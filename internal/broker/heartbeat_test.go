package broker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A heartbeat goes to the coordinator, whichever broker that is, and gives what
// it says.
func TestHeartbeat(t *testing.T) {
	bubble(t, "three brokers", func(t *testing.T) {
		w := newWorld(t, kfake.NumBrokers(3), brokers(3))
		for i := range 12 {
			if err := w.Heartbeat(t.Context(), fmt.Sprint("group ", i), 1, "member"); !errors.Is(err, kafka.GroupIdNotFound) && !errors.Is(err, kafka.UnknownMemberId) {
				t.Errorf("%v", err)
			}
		}
		var code atomic.Int64
		w.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			beat := r.(*kmsg.HeartbeatRequest)
			if beat.Group != "group" || beat.Generation != 7 || beat.MemberID != "member" {
				t.Errorf("%+v", beat)
			}
			answer := r.ResponseKind().(*kmsg.HeartbeatResponse)
			answer.ErrorCode = int16(code.Load())
			return answer, nil, true
		})
		for _, want := range []error{nil, kafka.RebalanceInProgress, kafka.IllegalGeneration, kafka.NotCoordinatorForGroup} {
			code.Store(0)
			var failure kafka.Error
			if errors.As(want, &failure) {
				code.Store(int64(failure))
			}
			if err := w.Heartbeat(t.Context(), "group", 7, "member"); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
		}
		w.cut(true)
		if err := w.Heartbeat(t.Context(), "group", 7, "member"); err == nil {
			t.Error("a heartbeat that nobody got was good")
		}
	})
}
