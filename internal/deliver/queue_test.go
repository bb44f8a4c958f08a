package deliver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// bench is a queue whose tries end as the test says.
type bench struct {
	*queue
	begun []*job // that run, in the order in which they began; the queue's lock guards it
}

func newBench(concurrency int, partitions ...int32) *bench {
	b := new(bench)
	b.queue = newQueue(concurrency, 1<<30, func(j *job) { b.begun = append(b.begun, j) }, func() {})
	for _, number := range partitions {
		b.assign(number, progress{}, newWindow(0), false)
	}
	return b
}

// records are some without keys and stream ids.
func records(from, to int64) []broker.Record {
	var all []broker.Record
	for offset := from; offset < to; offset++ {
		all = append(all, broker.Record{Offset: offset, Record: record.Record{Value: []byte("x")}})
	}
	return all
}

// take takes the try that began first.
func (b *bench) take() *job {
	j := b.begun[0]
	b.begun = b.begun[1:]
	return j
}

// takeLast takes the try that began last, nil if none runs, and gives how many
// there were.
func (b *bench) takeLast() (j *job, of int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	of = len(b.begun)
	if of > 0 {
		j, b.begun = b.begun[of-1], b.begun[:of-1]
	}
	return j, of
}

func (b *bench) place(j *job) string {
	return fmt.Sprintf("%d/%d", j.partition().number, j.record.Offset)
}

// again has a try repeated.
func again(int) (time.Duration, bool) { return 0, false }

// A partition's backlog does not hold up another.
func TestPartitionsTakeTurns(t *testing.T) {
	b := newBench(2, 0, 1, 2)
	b.put(0, records(0, 100), 100)
	b.put(1, records(0, 3), 3)
	b.put(2, records(0, 2), 2)
	var order []string
	for range 10 {
		j := b.take()
		order = append(order, b.place(j))
		b.done(j)
	}
	if want := []string{"0/0", "0/1", "0/2", "1/0", "2/0", "0/3", "1/1", "2/1", "0/4", "1/2"}; !slices.Equal(order, want) {
		t.Errorf("%v", order)
	}
}

// Whatever became of the log, what was read twice is tried once, what is missing
// counts as done, and a partition of somebody else is left alone.
func TestPut(t *testing.T) {
	b := newBench(10)
	p := progress{base: 3}
	p.finish(5, 6)
	b.assign(0, p, newWindow(0), false)
	done := broker.Record{Offset: 5, Record: record.Record{Headers: []record.Header{{Key: record.HeaderCorrelationID, Value: []byte("seen")}}}}
	b.put(0, append(append(records(2, 5), done), records(8, 10)...), 11) // 6, 7 and 10 are not there
	b.put(0, records(8, 10), 11)
	b.put(1, records(0, 2), 2)
	var got []string
	for _, j := range b.begun {
		got = append(got, b.place(j))
	}
	if want := []string{"0/3", "0/4", "0/8", "0/9"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if !b.partitions[0].seen.has("seen") {
		t.Error("what was done ahead of the commit is not known to be done")
	}
	for len(b.begun) > 0 {
		b.done(b.take())
	}
	if at, ok := b.wanted(0); at != 11 || !ok || b.partitions[0].progress.base != 11 {
		t.Errorf("%d %t %+v", at, ok, b.partitions[0].progress)
	}
	if _, ok := b.wanted(1); ok {
		t.Error("a partition of somebody else is wanted")
	}
}

// However much fails, the progress fits into a commit, what failed is tried
// again side by side, and all comes to an end.
func TestCrowdedProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency, total = 40, 3000
		b := newBench(concurrency, 0)
		b.put(0, records(0, total), total)
		// all ends the tries that run and those that begin after them, the last
		// first, for that is the worst for the progress.
		all := func(end func(*job)) (tries, most int) {
			for ; ; tries++ {
				j, of := b.takeLast()
				if most = max(most, of); j == nil {
					return tries, most
				}
				end(j)
				if tries%50 > 0 {
					continue
				}
				for _, s := range b.changes() {
					if len(s.metadata) > maxMetadata {
						t.Fatalf("%d bytes after %d tries", len(s.metadata), tries)
					}
				}
			}
		}
		fail := func(j *job) {
			b.failed(j, cause{}, again)
			b.park(j, time.Second)
		}
		held, _ := all(fail)
		// In an outage what was tried is tried again, and nothing else.
		for range 2 {
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if again, most := all(fail); again < held || again > held+retryRoom || most != concurrency {
				t.Fatalf("%d tries, up to %d at once; %d before", again, most, held)
			}
		}
		// And then all is well.
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		all(b.done)
		if p := b.partitions[0]; p.progress.base != total || len(p.lanes) > 0 || p.bytes != 0 || len(p.ready)+len(p.retries) > 0 {
			t.Errorf("%+v", p.progress)
		}
		t.Logf("%d of %d records were held with a failed try", held, total)
	})
}

// However many tries run in a partition, and in whatever order they end, the
// places are taken as long as there are lanes.
func TestPlacesAreTaken(t *testing.T) {
	for _, concurrency := range []int{50, 200, 400} {
		const total, keys = 10_000, 2000
		b := newBench(concurrency, 0)
		random := rand.New(rand.NewPCG(1, uint64(concurrency)))
		all := records(0, total)
		for i := range all {
			all[i].Key = strconv.AppendInt(nil, random.Int64N(keys), 10)
		}
		b.put(0, all, total)
		var answered []*job // and on their way to the broker
		taken, steps := 0, 0
		for len(b.begun) > 0 || len(answered) > 0 {
			if len(b.partitions[0].lanes) > 2*concurrency {
				taken += len(b.begun)
				steps++
			}
			if n := len(b.begun); n > 0 {
				i := random.IntN(min(n, 1+n/4)) // some are quicker than others
				j := b.begun[i]
				b.begun = slices.Delete(b.begun, i, i+1)
				b.returned(j)
				answered = append(answered, j)
			}
			if n := len(answered); n > concurrency/2 || len(b.begun) == 0 {
				i := random.IntN(n)
				b.done(answered[i])
				answered = slices.Delete(answered, i, i+1)
			}
			if n := len(b.partitions[0].progress.encode()); n > maxMetadata {
				t.Fatalf("concurrency %d: progress takes %d bytes", concurrency, n)
			}
		}
		if p := b.partitions[0]; p.progress.base != total {
			t.Fatalf("concurrency %d: stuck at %d", concurrency, p.progress.base)
		}
		if share := float64(taken) / float64(steps*concurrency); share < 0.95 {
			t.Errorf("concurrency %d: %.2f of the places are taken", concurrency, share)
		} else {
			t.Logf("concurrency %d: %.2f of the places are taken, in %d steps", concurrency, share, steps)
		}
	}
}

// A partition whose progress is full is read as far as that goes, by who takes it
// over too.
func TestFullProgressIsRead(t *testing.T) {
	var p progress
	for offset := int64(0); p.fits(1, offset); offset++ {
		p.fail(offset)
	}
	waiting := int64(len(p.tries))
	b := newBench(10)
	b.assign(0, p, newWindow(0), false)
	for at := int64(0); at < waiting; at = b.partitions[0].next {
		if _, ok := b.wanted(0); !ok {
			t.Fatalf("nothing is read behind %d, where %d wait", at, waiting)
		}
		b.put(0, records(at, at+100), at+100)
	}
	if _, ok := b.wanted(0); ok {
		t.Error("more is read than the progress can tell of")
	}
	for len(b.begun) > 0 {
		b.done(b.take())
	}
	if p := b.partitions[0]; p.progress.base != p.next {
		t.Errorf("%d is done, %d was read", p.progress.base, p.next)
	}
}

// A log with a hole after each record, as transactions of one record leave it, is
// read no further than the progress can tell.
func TestHoles(t *testing.T) {
	const total = 20_000
	b := newBench(20, 0)
	var all []broker.Record
	for _, r := range records(0, total/2) {
		r.Offset *= 2
		all = append(all, r)
	}
	tries := 0
	for reads := 0; b.partitions[0].progress.base < total; reads++ {
		if reads > total {
			t.Fatalf("stuck at %d", b.partitions[0].progress.base)
		}
		if _, ok := b.wanted(0); ok {
			b.put(0, all, total)
		}
		for range 200 {
			if len(b.begun) == 0 {
				break
			}
			j := b.begun[len(b.begun)-1]
			b.begun = b.begun[:len(b.begun)-1]
			b.done(j)
			tries++
		}
		if n := len(b.partitions[0].progress.encode()); n > maxMetadata {
			t.Fatalf("progress takes %d bytes", n)
		}
	}
	if tries != total/2 {
		t.Errorf("%d tries", tries)
	}
}

// What was read beyond the end that the log has now counts for nothing.
func TestLogIsCutOff(t *testing.T) {
	b := newBench(10, 0)
	b.put(0, records(0, 6), 6)
	tries := slices.Clone(b.begun)
	b.done(tries[1])
	b.done(tries[4])
	b.failed(tries[2], cause{}, again)
	b.failed(tries[5], cause{}, again)
	if _, beyond := b.move(0, 0, 3); !beyond {
		t.Fatal("not noticed")
	}
	b.done(tries[3])
	b.started(tries[5])
	if n, last := b.failed(tries[5], cause{}, func(n int) (time.Duration, bool) { return 0, n == 1 }); n != 1 || !last {
		t.Errorf("%d %t", n, last)
	}
	b.done(tries[0])
	p := b.partitions[0].progress
	if p.base != 2 || len(p.done) > 0 || len(p.tries) != 1 || p.tries[2].failed != 1 {
		t.Errorf("%+v", p)
	}
	if _, beyond := b.move(7, 0, 3); beyond {
		t.Error("a partition of somebody else was cut off")
	}
}

// What retention took before it was read is done.
func TestLogBeginsLater(t *testing.T) {
	b := newBench(10, 0)
	b.put(0, records(0, 1), 1)
	if behind, beyond := b.move(0, 5, 9); !behind || beyond {
		t.Error("cut off")
	}
	b.done(b.take())
	if p := b.partitions[0].progress; p.base != 5 {
		t.Errorf("%+v", p)
	}
}

// More may run at once from one moment to the next, and not fewer than run.
func TestLimit(t *testing.T) {
	b := newBench(1, 0)
	b.put(0, records(0, 10), 10)
	b.limit(4)
	if len(b.begun) != 4 {
		t.Errorf("%d run", len(b.begun))
	}
	b.limit(2)
	b.done(b.take())
	b.done(b.take())
	if len(b.begun) != 2 {
		t.Errorf("%d run", len(b.begun))
	}
	b.done(b.take())
	if len(b.begun) != 2 {
		t.Errorf("%d run", len(b.begun))
	}
}

// A try whose handler has returned makes room for another, and as many of those
// as there are places hold up the rest. The end waits for them too.
func TestPlaceIsFreeWhenHandlerReturns(t *testing.T) {
	b := newBench(2, 0)
	b.put(0, records(0, 10), 10)
	want := func(begun int, when string) {
		t.Helper()
		if len(b.begun) != begun {
			t.Fatalf("%d tries have begun %s, want %d", len(b.begun), when, begun)
		}
	}
	want(2, "at first")
	b.returned(b.begun[0])
	b.returned(b.begun[0])
	want(3, "with one that has returned")
	b.returned(b.begun[1])
	want(4, "with two")
	b.returned(b.begun[2])
	b.returned(b.begun[3])
	want(4, "with four")
	b.done(b.begun[0])
	want(5, "when one is done")
	b.park(b.begun[4], time.Hour) // whose handler was not called
	want(6, "when one is parked")
	numbers := []int32{0}
	if n := b.stop(numbers); n != 4 {
		t.Fatalf("%d run when it stops", n)
	}
	b.done(b.begun[5])
	b.done(b.begun[1])
	b.done(b.begun[2])
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if b.awaitIdle(ended, numbers) {
		t.Fatal("idle with an answer under way")
	}
	b.done(b.begun[3])
	if !b.awaitIdle(t.Context(), numbers) || b.running != 0 || b.ending != 0 {
		t.Errorf("%d with a place, %d without", b.running, b.ending)
	}
}
