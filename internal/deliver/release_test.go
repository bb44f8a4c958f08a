package deliver

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// told is what the queue tells of tries whose partition is another's.
type told struct {
	offset int64
	done   bool
	past   past
}

// releasing is a bench that collects it.
func releasing(concurrency int, partitions ...int32) (*bench, *[]told) {
	b := newBench(concurrency)
	b.run = newRun()
	for _, number := range partitions {
		b.assign(number, progress{}, newWindow(0), false)
	}
	all := new([]told)
	b.ended = func(j *job, done bool) { *all = append(*all, told{j.record.Offset, done, j.past}) }
	return b, all
}

// The last commit says which tries run on, and each of them tells how it has ended.
// Nothing else of the partition goes on.
func TestTriesAreHandedOver(t *testing.T) {
	b, outcomes := releasing(4, 0, 1)
	b.put(0, records(0, 6), 6)
	b.failed(b.begun[0], cause{503, "later"}, again)
	b.park(b.begun[0], time.Hour) // the fifth record has its place
	b.started(b.begun[1])
	b.failed(b.begun[2], cause{500, "no"}, func(int) (time.Duration, bool) { return 0, true })
	if n := b.stop([]int32{0}); n != 4 {
		t.Fatalf("%d run", n)
	}
	b.done(b.begun[3])
	if n := b.handOver([]int32{0}); n != 3 || len(*outcomes) != 0 {
		t.Fatalf("%d handed over, %v", n, *outcomes)
	}
	all := b.changes()
	p, err := parseProgress(all[0].offset, all[0].metadata)
	if err != nil {
		t.Fatal(err)
	}
	by := b.run
	want := map[int64]past{
		0: {failed: 1, code: 503, reason: "later"},
		1: {started: true, by: by},
		2: {failed: 1, givenUp: true, by: by, code: 500, reason: "no"},
		4: {by: by},
	}
	for offset, e := range want {
		if p.tries[offset] != e {
			t.Errorf("%d: %+v, want %+v", offset, p.tries[offset], e)
		}
	}
	if len(p.tries) != len(want) || !p.isDone(3) || p.owner != by {
		t.Errorf("%+v", p)
	}
	b.remove([]int32{0})
	b.put(1, records(0, 9), 9)
	if n := len(b.begun); n != 6 {
		t.Errorf("%d tries began, want one more, in the free place", n)
	}
	b.done(b.begun[2]) // buried
	b.failed(b.begun[1], cause{0, "broke off"}, again)
	b.park(b.begun[1], time.Minute)
	b.cutShort(b.begun[4], false)
	b.park(b.begun[4], time.Second)
	if got := []told{
		{2, true, past{failed: 1, givenUp: true, code: 500, reason: "no"}},
		{1, false, past{failed: 1, reason: "broke off"}},
		{4, false, past{cuts: 1}},
	}; !slices.Equal(*outcomes, got) {
		t.Errorf("%+v", *outcomes)
	}
	if len(b.leaving) != 0 || b.running != 4 {
		t.Errorf("%d partitions are left, %d tries have a place", len(b.leaving), b.running)
	}
}

// The next owner tries what is not under way, waits for what is, and takes the
// outcomes as its own.
func TestOutcomesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := releasing(10)
		other, dead := newRun(), newRun()
		p := progress{owner: other}
		p.set(0, past{failed: 1, by: other})
		p.set(1, past{by: other})
		p.set(2, past{by: dead})
		p.set(3, past{by: other})
		b.assign(0, p, newWindow(0), false)
		b.put(0, records(0, 5), 5)
		begun := func(want ...string) {
			t.Helper()
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			var got []string
			for _, j := range b.begun {
				got = append(got, b.place(j))
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%v began, want %v", got, want)
			}
		}
		begun("0/4")
		for name, o := range map[string]outcome{
			"another run": {offset: 0, by: dead, try: 2, state: outcomeDone},
			"another try": {offset: 0, by: other, try: 1, state: outcomeDone},
			"not marked":  {offset: 4, by: other, try: 1, state: outcomeDone},
		} {
			if b.settle(0, o) {
				t.Errorf("%s was believed", name)
			}
		}
		begun("0/4")
		if runs := b.foreign(); len(runs) != 2 {
			t.Errorf("waits for %v", runs)
		}
		b.settle(0, outcome{offset: 1, by: other, try: 1, state: outcomeStarted})
		b.settle(0, outcome{offset: 0, by: other, try: 2, state: outcomeDone, id: "s"})
		b.settle(0, outcome{offset: 3, by: other, try: 1, state: outcomeFailed, past: past{failed: 1, due: time.Now().Add(time.Minute).Unix(), code: 503}})
		begun("0/4")
		if n := b.died(dead); n != 1 {
			t.Errorf("%d tries died", n)
		}
		begun("0/4", "0/2")
		b.mu.Lock()
		if e := b.begun[1].past; e != (past{cuts: 1}) {
			t.Errorf("%+v", e)
		}
		b.mu.Unlock()
		time.Sleep(time.Minute)
		begun("0/4", "0/2", "0/3")
		b.mu.Lock()
		is := b.partitions[0]
		b.mu.Unlock()
		if !is.progress.isDone(0) || !is.seen.has("s") || is.progress.past(1) != (past{started: true, by: other}) {
			t.Errorf("%+v", is.progress)
		}
		if runs := b.foreign(); !slices.Equal(runs, []run{other}) {
			t.Errorf("waits for %v", runs)
		}
	})
}

// What is lost counts for nothing, and ends.
func TestLost(t *testing.T) {
	b, outcomes := releasing(4, 0)
	b.put(0, records(0, 3), 3)
	p := b.partitions[0]
	b.drop([]int32{0}, errLost)
	if !errors.Is(context.Cause(p.tries), errLost) {
		t.Error("its tries go on")
	}
	for _, j := range b.begun {
		if b.standing(j) != lost {
			t.Error("a try of it may go on")
		}
	}
	b.done(b.begun[0])
	b.park(b.begun[1], 0)
	b.started(b.begun[2])
	b.failed(b.begun[2], cause{}, again)
	b.park(b.begun[2], 0)
	if len(*outcomes) > 0 || len(b.changes()) > 0 || b.running != 0 || b.bytes != 0 || len(b.leaving) != 0 {
		t.Errorf("%+v", *outcomes)
	}
	if _, ok := b.wanted(0); ok {
		t.Error("it is read")
	}
}

// A partition waits for a commit of this run's before its first try, and after an
// interruption until it is known that nobody else has had it.
func TestClaim(t *testing.T) {
	b, _ := releasing(4)
	claims := 0
	b.claim = func() { claims++ }
	b.assign(0, progress{}, newWindow(0), false)
	b.put(0, records(0, 1), 1)
	if len(b.begun) > 0 || claims != 1 {
		t.Fatalf("%d tries, %d claims", len(b.begun), claims)
	}
	all := b.changes()
	b.unchanged(all)
	all = b.changes()
	if p, err := parseProgress(0, all[0].metadata); err != nil || p.owner != b.run {
		t.Errorf("%+v, %v", p, err)
	}
	b.committed(all)
	if len(b.begun) != 1 || claims != 1 {
		t.Fatalf("%d tries, %d claims", len(b.begun), claims)
	}
	b.interrupt([]int32{0})
	b.put(0, records(1, 2), 2)
	b.started(b.begun[0])
	if b.standing(b.begun[0]) != unsure || len(b.begun) != 1 || len(b.changes()) > 0 {
		t.Error("it goes on although it may be another's")
	}
	b.resume(1, 0)
	if b.standing(b.begun[0]) != held || len(b.begun) != 2 || len(b.changes()) != 1 {
		t.Error("it does not go on")
	}
}

// A partition is given up only when the commit that is on its way has arrived: it
// says what was done, and from another generation the coordinator takes it no more.
func TestCommitOnItsWayWhenAPartitionGoes(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var tries atomic.Int64
		h := func(w http.ResponseWriter, req *http.Request) error {
			tries.Add(1)
			return echo(w, req)
		}
		d := r.deliver(options(h))
		pass(10 * time.Second)
		r.send(1, keyless)
		r.done(1) // and the partition is claimed
		const takes = 2 * time.Second
		got := r.commits(takes)
		if _, err := r.put(t.Context(), testTopic, 0, r.request("last", "", "x")); err != nil {
			t.Fatal(err)
		}
		r.eventually(func() bool { return len(got.take()) > 0 }, func() string { return "nothing is committed" })
		d.Close()
		if p := r.committed(); p.base != 2 {
			t.Errorf("committed %+v", p)
		}
		r.deliver(options(h))
		pass(time.Minute)
		if n := tries.Load(); n != 2 {
			t.Errorf("%d tries of 2 records", n)
		}
	})
}

// A run that is taken for dead goes on with nothing that it has handed over, also
// where the last commit is still on its way.
func TestDeadWhileHandingOver(t *testing.T) {
	b, _ := releasing(4, 0, 1)
	b.put(0, records(0, 1), 1)
	b.put(1, records(0, 1), 1)
	b.stop([]int32{0})
	b.handOver([]int32{0})
	b.cancelHanded(errLost)
	if !errors.Is(context.Cause(b.partitions[0].tries), errLost) || context.Cause(b.partitions[1].tries) != nil {
		t.Error(context.Cause(b.partitions[0].tries), context.Cause(b.partitions[1].tries))
	}
}

// Outcomes are told by the run that has the tries, as long as it goes by that name,
// and not by what has become of the partition here.
func TestOutcomesAreToldByTheirRun(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		d := r.deliver(options(echo))
		pass(10 * time.Second)
		p := &partition{number: 7}
		p.tries, p.cancel = context.WithCancelCause(t.Context())
		p.cancel(errLost) // its last commit was refused, or was not answered
		own := d.handovers.owner()
		j := &job{lane: &lane{partition: p}, handed: true, handedAs: 1, handedBy: own}
		d.handovers.ended(j, false)
		if told := r.read(testControl); len(told) != 1 {
			t.Errorf("%d outcomes told", len(told))
		}
		d.handovers.signNow(t.Context())
		pass(time.Second)
		if !d.handovers.alive(own) {
			t.Error("not alive")
		}
		d.handovers.take(message{Dead: own.String(), Sign: 1})
		d.handovers.signNow(t.Context())
		pass(time.Second)
		if d.handovers.alive(own) || !d.handovers.alive(d.handovers.owner()) {
			t.Error("alive under the wrong name")
		}
		d.handovers.ended(j, false)
		if told := r.read(testControl); len(told) != 3 {
			t.Errorf("%d records, want an outcome and two signs", len(told))
		}
	})
}

// Who waits for a commit does not take one for it that was made while the partition
// was in doubt, though it is not any more when that is answered.
func TestCommitWithoutASuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.assign(0, progress{}, newWindow(0), true)
		b.assign(1, progress{}, newWindow(0), true)
		p := b.partitions[0]
		b.interrupt([]int32{0})
		var sent []int32
		c := newCommitter(b.queue, func(_ context.Context, all []standing) error {
			for _, s := range all {
				sent = append(sent, s.partition)
			}
			b.resume(1, 0)
			return nil
		}, func(int, error) {})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go c.run(ctx)
		if err := c.now(ctx, p); err != nil || !slices.Equal(sent, []int32{1, 0}) {
			t.Errorf("%v, committed %v", err, sent)
		}
		cancel()
	})
}
