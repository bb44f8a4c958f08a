package deliver

import (
	"bytes"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A partition whose backlog fills every answer of the broker does not starve those
// that stand after it in the fetch.
func TestBusyPartitionStarvesNoOther(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const partitions, fetch, backlog = 3, 100 * time.Millisecond, 48
		r.topic(partitions)
		large := bytes.Repeat([]byte("x"), 1_000_000) // four of them fill an answer
		for i := range backlog {
			if _, err := r.put(t.Context(), testTopic, 0, r.request("busy"+strconv.Itoa(i), "", string(large))); err != nil {
				t.Fatal(err)
			}
		}
		for p := range int32(partitions) {
			if _, err := r.put(t.Context(), testTopic, p, r.request("small"+strconv.Itoa(int(p)), "", "x")); err != nil {
				t.Fatal(err)
			}
		}
		r.cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.cluster.KeepControl()
			r.cluster.SleepControl(func() { pass(fetch) })
			return nil, nil, false
		})
		var mu sync.Mutex
		begun := make(map[string]time.Time)
		r.deliver(options(func(_ http.ResponseWriter, req *http.Request) error {
			mu.Lock()
			defer mu.Unlock()
			begun[req.Header.Get(HeaderStreamID)] = time.Now()
			return nil
		}), func(c *Config) { c.Topic, c.MaxBytes = testTopic, 1<<30 })
		pass(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		first, last := begun["busy0"], begun["small0"]
		if took := last.Sub(first); len(begun) != backlog+partitions || took < backlog/5*fetch {
			t.Fatalf("%d records in %s: the partition was not busy", len(begun), took)
		}
		const most = (partitions + 1) * fetch // the first fetch may be of those alone that were ready by then
		for _, id := range []string{"small1", "small2"} {
			if took := begun[id].Sub(first); took > most {
				t.Errorf("%s waits for %s, want its turn after %s at most", id, took, most)
			}
		}
	})
}
