package deliver

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// What a scaler is told is what there is: keys, tries, partitions, and how long
// tries take.
func TestLoad(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		d := r.deliver(options(func(http.ResponseWriter, *http.Request) error {
			<-release
			return nil
		}, func(o *Options) { o.Concurrency = 2 }))
		if l := d.Load(); l.Keys != 0 || l.WorkTime != 0 || l.WorkSpread != 0 || l.Running != 0 {
			t.Errorf("%+v before anything came", l)
		}
		r.send(7, func(i int) string {
			if i < 4 {
				return "key " + strconv.Itoa(i%2)
			}
			return ""
		})
		var l Load
		r.eventually(func() bool {
			l = d.Load()
			return l.Keys == 5 && l.Running == 2 && slices.Equal(l.Partitions, []int32{0})
		},
			func() string { return "two keys, three records without, and two tries were told as " + words(l) })
		close(release)
		r.done(7)
		if l := d.Load(); l.Keys != 0 || l.Running != 0 || l.WorkTime <= 0 {
			t.Errorf("%+v when all is done", l)
		}
		d.Close()
		if l := d.Load(); l.Partitions != nil || l.Keys != 0 {
			t.Errorf("%+v after the end", l)
		}
	})
}

func words(l Load) string {
	return strconv.Itoa(l.Keys) + " keys, " + strconv.Itoa(l.Running) + " tries, " + strconv.Itoa(len(l.Partitions)) + " partitions"
}

// A failed try is work, and one that its generation or its client has cut off is
// not.
func TestWorkThatCounts(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		d := r.deliver(options(func(w http.ResponseWriter, q *http.Request) error {
			switch q.Header.Get("Osmosis-Stream-Id") {
			case "s0": // fails in the middle
				time.Sleep(2 * time.Second)
				return &Failure{http.StatusBadGateway, http.ErrServerClosed}
			case "s1": // is cut off
				<-q.Context().Done()
				return q.Context().Err()
			}
			return nil
		}, func(o *Options) { o.Attempts = 1 }))
		r.send(2, keyless)
		r.eventually(func() bool { return d.Load().WorkTime != 0 }, func() string { return "no work was told" })
		d.Close()
		if l := d.Load(); l.WorkTime.Round(time.Millisecond) != 2*time.Second || l.WorkSpread > 0.001 {
			t.Errorf("%+v", l)
		}
	})
}

// The mean follows what happens, stays while nothing does, and knows the spread.
func TestWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w work
		for i := range 600 {
			w.add(time.Duration(10+20*(i%2)) * time.Millisecond)
			time.Sleep(100 * time.Millisecond)
		}
		mean, spread := w.told()
		if mean.Round(100*time.Microsecond) != 20*time.Millisecond || math.Abs(spread-0.5) > 0.01 {
			t.Errorf("%s ± %.3f, want 20ms ± 0.5", mean, spread)
		}
		time.Sleep(1000 * time.Hour)
		if after, _ := w.told(); after != mean {
			t.Errorf("%s was forgotten: %s", mean, after)
		}
		w.add(time.Second)
		if mean, spread := w.told(); mean != time.Second || spread != 0 {
			t.Errorf("%s ± %.3f, want 1s ± 0", mean, spread)
		}
	})
}

// A scaler's word counts until it takes it back, whatever the configuration says
// meanwhile, and over generations.
func TestSetConcurrency(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		running, release := 0, make(chan struct{})
		handle := handlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			mu.Lock()
			running++
			mu.Unlock()
			w.WriteHeader(http.StatusOK) // its upstream is not silent
			<-release
			return nil
		})
		defer close(release)
		of := func(n int) Options { return options(handle, func(o *Options) { o.Concurrency = n }) }
		want := func(n int, when string) {
			t.Helper()
			pass(5 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			if running != n {
				t.Fatalf("%d tries run %s, want %d", running, when, n)
			}
		}
		d := r.deliver(of(2))
		d.SetConcurrency(3) // before there is a generation
		r.send(20, keyless)
		want(3, "by the scaler's word")
		d.Use(of(9))
		want(3, "after a reload")
		d.SetConcurrency(5)
		want(5, "by the scaler's next word")
		d.SetConcurrency(0)
		want(9, "by the configuration")
	})
}
