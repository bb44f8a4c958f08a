package deliver

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// commits are the requests to commit that the broker has got.
type commits struct {
	mu  sync.Mutex
	all []commit
}

type commit struct {
	at time.Time
	// partitions counts those that it is about, metadata is the longest of theirs.
	partitions int
	metadata   string
}

// take gives what has come since the last call.
func (c *commits) take() []commit {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.all
	c.all = nil
	return all
}

// commits begins to write down what is committed, and holds each request for a
// time that the broker takes for it.
func (r *rig) commits(takes time.Duration) *commits {
	c := new(commits)
	r.cluster.ControlKey(int16(kmsg.OffsetCommit), func(q kmsg.Request) (kmsg.Response, error, bool) {
		r.cluster.KeepControl()
		one := commit{at: time.Now()}
		for _, topic := range q.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				one.partitions++
				if p.Metadata != nil && len(*p.Metadata) > len(one.metadata) {
					one.metadata = *p.Metadata
				}
			}
		}
		c.mu.Lock()
		c.all = append(c.all, one)
		c.mu.Unlock()
		if takes > 0 {
			r.cluster.SleepControl(func() { pass(takes) })
		}
		return nil, nil, false
	})
	return c
}

// topic makes the topic of requests anew, with so many partitions.
func (r *rig) topic(partitions int32) {
	r.t.Helper()
	err := r.cluster.DeleteTopic(testTopic)
	if err == nil {
		err = r.cluster.CreateTopic(testTopic, partitions, nil)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	pass(10 * time.Second) // the test's own client has heard of it
}

// What is done is committed 200 ms later, with all that was done meanwhile in any
// partition, and nothing is committed while nothing is done.
func TestCommitsAreGathered(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const partitions, records, apart = 4, 1000, 10 * time.Millisecond
		r.topic(partitions)
		got := r.commits(0)
		r.deliver(options(echo))
		pass(20 * time.Second)             // it has joined
		for p := range int32(partitions) { // and has committed once for each partition
			if _, err := r.put(t.Context(), testTopic, p, r.request("first"+strconv.Itoa(int(p)), "", "x")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		got.take()

		begun := time.Now()
		for i := range records {
			if _, err := r.put(t.Context(), testTopic, int32(i%partitions), r.request("s"+strconv.Itoa(i), "", "x")); err != nil {
				t.Fatal(err)
			}
			pass(apart)
		}
		pass(time.Second)
		all := got.take()
		// Each gathers for 200 ms, and begins with the first record that is done after
		// the one before.
		if most, least := int(records*apart/(200*time.Millisecond)), int(records*apart/(250*time.Millisecond)); len(all) > most || len(all) < least {
			t.Fatalf("%d commits in %s, want %d to %d", len(all), time.Since(begun), least, most)
		}
		if first := all[0].at.Sub(begun); first < 200*time.Millisecond || first > 201*time.Millisecond {
			t.Errorf("the first record was committed after %s, want 200ms", first)
		}
		for i, c := range all {
			if c.partitions != partitions {
				t.Errorf("commit %d is of %d partitions", i, c.partitions)
			}
			if i > 0 && c.at.Sub(all[i-1].at) < 200*time.Millisecond {
				t.Errorf("commit %d comes %s after the one before", i, c.at.Sub(all[i-1].at))
			}
		}
		pass(10 * time.Minute)
		if idle := got.take(); len(idle) > 0 {
			t.Errorf("%d commits while nothing is done", len(idle))
		}
	})
}

// A failed try is committed at once, not after 200 ms, however soon the next is.
func TestCommitBeforeARetryIsAtOnce(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		got := r.commits(0)
		var tries times
		r.deliver(options(func(_ http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "first" {
				return nil
			}
			tries.note(req)
			return errors.New("no luck")
		}, func(o *Options) { o.BackoffMin, o.BackoffMax = 10*time.Millisecond, 10*time.Millisecond }))
		if _, err := r.put(t.Context(), testTopic, 0, r.request("first", "", "x")); err != nil {
			t.Fatal(err)
		}
		r.done(1) // so that the partition's first commit is past
		got.take()
		r.send(1, keyless)
		pass(time.Second)
		tries.mu.Lock()
		defer tries.mu.Unlock()
		begun, all := tries.begun["s0"], got.take()
		if len(begun) != 3 || len(all) < 3 {
			t.Fatalf("%d tries, %d commits", len(begun), len(all))
		}
		for i, at := range begun {
			if late := all[i].at.Sub(at); late < 0 || late > 2*time.Millisecond {
				t.Errorf("try %d was committed %s after it failed", i+1, late)
			}
			if p, err := parseProgress(1, all[i].metadata); err != nil || p.past(1).failed != i+1 {
				t.Errorf("commit %d: %+v, %v", i, p, err)
			}
		}
	})
}

// However slow the coordinator is, no commit begins before the last was answered:
// two that overtake each other would take back what is done.
func TestOneCommitAtATime(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const takes = time.Second
		got := r.commits(takes)
		var tries times
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if n, _ := strconv.Atoi(req.Header.Get(HeaderStreamID)[1:]); n%3 == 0 && tries.note(req) == 1 {
				return errors.New("no luck") // which wants to be committed at once
			}
			return echo(w, req)
		}))
		pass(20 * time.Second)
		got.take()
		for i := range 100 {
			if _, err := r.put(t.Context(), testTopic, 0, r.request("s"+strconv.Itoa(i), "", "x")); err != nil {
				t.Fatal(err)
			}
			pass(50 * time.Millisecond)
		}
		r.done(100)
		all := got.take()
		for i := 1; i < len(all); i++ {
			if after := all[i].at.Sub(all[i-1].at); after < takes {
				t.Errorf("commit %d begins %s after the one before, which takes %s", i, after, takes)
			}
		}
		if len(all) < 5 {
			t.Errorf("%d commits", len(all))
		}
	})
}
