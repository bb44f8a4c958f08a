package autoscale

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A holder that is cut off stops two seconds before its group can give the lease to
// another one: what it is just doing has that long to end. The group counts from the
// last heartbeat that it got.
func TestLeaseMargin(t *testing.T) {
	for phase := time.Duration(0); phase < time.Second; phase += 100 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			c := newLeaseCluster(t)
			var mu sync.Mutex
			var session time.Duration
			var heard time.Time
			for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.Heartbeat} {
				c.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					mu.Lock()
					defer mu.Unlock()
					if join, ok := r.(*kmsg.JoinGroupRequest); ok {
						session = time.Duration(join.SessionTimeoutMillis) * time.Millisecond
					}
					heard = time.Now()
					return nil, nil, false
				})
			}
			holder := c.candidate(true)
			settle(joinedLease + phase)
			holder.stands(t, true, false)
			holder.cut()
			for _, held := holder.Held(); held; _, held = holder.Held() {
				<-holder.Changed()
			}
			mu.Lock()
			defer mu.Unlock()
			if left := time.Until(heard.Add(session)); left < 2*time.Second {
				t.Errorf("cut off %s later, it has stopped %s before another can begin", phase, left)
			}
		})
	}
}
