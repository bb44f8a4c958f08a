package ingress

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// departures notes when produce requests leave, each of which takes as long as
// its number says, counted from 0; those after the last take no time.
type departures struct {
	start time.Time
	takes []time.Duration

	mu sync.Mutex
	at []time.Duration
}

func (d *departures) request() (fate, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = append(d.at, time.Since(d.start))
	if n := len(d.at); n <= len(d.takes) {
		return pass, d.takes[n-1]
	}
	return pass, 0
}

// A call that is answered soon has none beside it: the next one takes what has
// come meanwhile. Beside one that takes long a second goes out.
func TestCallsBeside(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		takes []time.Duration // the calls, in turn
		come  []time.Duration // the records
		want  []time.Duration // when calls go out
	}{
		"one after the other": {
			takes: []time.Duration{2 * ms, 2 * ms, 2 * ms},
			come:  []time.Duration{0, 1 * ms, 1 * ms, 3 * ms},
			want:  []time.Duration{0, 2 * ms, 4 * ms},
		},
		"one that takes long": {
			takes: []time.Duration{time.Second, 2 * ms, 2 * ms, 2 * ms},
			come:  []time.Duration{0, 1 * ms, 2 * ms, 6 * ms, 20 * ms, 21 * ms},
			want:  []time.Duration{0, patience, patience + 2*ms, 20 * ms, 22 * ms},
		},
		"two that take long": {
			takes: []time.Duration{time.Second, time.Second},
			come:  []time.Duration{0, 1 * ms, 100 * ms},
			want:  []time.Duration{0, patience, time.Second},
		},
		"a far broker": {
			takes: []time.Duration{40 * ms, 40 * ms, 40 * ms, 40 * ms},
			come:  []time.Duration{0, 20 * ms, 21 * ms, 41 * ms, 62 * ms},
			want:  []time.Duration{0, 20 * ms, 40 * ms, 60 * ms, 80 * ms},
		},
	} {
		for _, keyed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, keyed %t", name, keyed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 16, Config{})
					for i := range 100 { // every partition has its producer id
						w.must(fmt.Sprint(i), "before")
					}
					synctest.Wait() // until no call is under way
					d := &departures{start: time.Now(), takes: test.takes}
					w.link.onRequest(d.request)
					var all []<-chan error
					for i, at := range test.come {
						time.Sleep(at - time.Since(d.start))
						key := ""
						if keyed {
							key = fmt.Sprint(i) // each in a partition of its own
						}
						all = append(all, w.later(order(key, "x")))
						synctest.Wait()
					}
					for _, done := range all {
						if err := <-done; err != nil {
							t.Error(err)
						}
					}
					if !slices.Equal(d.at, test.want) {
						t.Errorf("calls went out at %v, want %v", d.at, test.want)
					}
				})
			})
		}
	}
}

// A leader whose call is under way does not hold up shared records that another
// one can take at once.
func TestSharedRecordsGoWhereNoCallIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, Config{}, three()...)
		for partition := range int32(6) { // kfake's choice may leave a broker without any
			if err := w.MoveTopicPartition("orders", partition, partition%3); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 100 {
			w.must(fmt.Sprint(i), "before")
		}
		synctest.Wait() // until no call is under way
		d := &departures{start: time.Now(), takes: []time.Duration{time.Second, time.Second}}
		w.link.onRequest(d.request)
		for range 2 {
			w.later(order("", "takes long"))
			synctest.Wait()
		}
		w.must("", "goes at once")
		if took := time.Since(d.start); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}
