package world

import (
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// debugging says that histories are to have all there is.
var debugging = os.Getenv("OSMOSIS_WORLD_DEBUG") != ""

// traceMembers notes who is in the group that delivers, every second.
func (w *world) traceMembers() {
	for w.sleep(time.Second) {
		if g := w.cluster.GroupInfo(orders); g != nil {
			text := ""
			for _, m := range g.Members {
				text += fmt.Sprintf(" %.16s %v", m.MemberID, m.Assignment)
			}
			w.history.note("group %s is %s in generation %d:%s", g.Group, g.State, g.Epoch, text)
		}
	}
}

// traceGroups notes what members ask their coordinator.
func (w *world) traceGroups() {
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.LeaveGroup, kmsg.Heartbeat, kmsg.OffsetCommit, kmsg.OffsetFetch} {
		w.cluster.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			var text string
			switch q := r.(type) {
			case *kmsg.JoinGroupRequest:
				text = fmt.Sprintf("%s member %q", q.Group, q.MemberID)
			case *kmsg.SyncGroupRequest:
				text = fmt.Sprintf("%s member %q generation %d, assigns %d", q.Group, q.MemberID, q.Generation, len(q.GroupAssignment))
			case *kmsg.LeaveGroupRequest:
				text = fmt.Sprintf("%s member %q %v", q.Group, q.MemberID, q.Members)
			case *kmsg.OffsetCommitRequest:
				text = fmt.Sprintf("%s member %q generation %d:", q.Group, q.MemberID, q.Generation)
				for _, t := range q.Topics {
					for _, p := range t.Partitions {
						text += fmt.Sprintf(" %d at %d", p.Partition, p.Offset)
					}
				}
			case *kmsg.OffsetFetchRequest:
				for _, g := range q.Groups {
					text += g.Group
					for _, t := range g.Topics {
						text += fmt.Sprint(t.Partitions)
					}
				}
			case *kmsg.HeartbeatRequest:
				text = fmt.Sprintf("%s member %q generation %d", q.Group, q.MemberID, q.Generation)
			}
			w.history.note("broker %d gets %s v%d %s", w.cluster.CurrentNode(), key.Name(), r.GetVersion(), text)
			return nil, nil, false
		})
	}
}
