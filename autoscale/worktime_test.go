package autoscale

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// simulatedGroup is a simulated group: each member works on its partitions' records, some
// at once, and commits now and then.
type simulatedGroup struct {
	random      *rand.Rand
	partitions  int
	members     int
	concurrency int
	work        time.Duration // on a record, on average
	commitEvery time.Duration // 0: after each record

	arrived, done, committed []int64
	busyUntil                [][]time.Duration // by member: its hands
	commitAt                 []time.Duration
	handled                  []int // by partition: in work
	finish                   []event
}

// event is a record that will be done.
type event struct {
	at        time.Duration
	partition int
}

func newSimulatedGroup(seed uint64, partitions, members, concurrency int, work, commitEvery time.Duration) *simulatedGroup {
	c := &simulatedGroup{
		random: rand.New(rand.NewPCG(seed, 1)), partitions: partitions, members: members, concurrency: concurrency, work: work, commitEvery: commitEvery,
		arrived: make([]int64, partitions), done: make([]int64, partitions), committed: make([]int64, partitions), handled: make([]int, partitions),
		busyUntil: make([][]time.Duration, members), commitAt: make([]time.Duration, members),
	}
	for m := range c.busyUntil {
		c.busyUntil[m] = make([]time.Duration, concurrency)
		c.commitAt[m] = time.Duration(c.random.Int64N(int64(commitEvery) + 1))
	}
	return c
}

// assigned gives each member its partitions.
func (c *simulatedGroup) assigned() map[string][]int32 {
	owned := make(map[string][]int32)
	for p := range c.partitions {
		name := fmt.Sprint("member ", p%c.members)
		owned[name] = append(owned[name], int32(p))
	}
	return owned
}

// step lets the group work for a step, in which so many records a second come.
func (c *simulatedGroup) step(now, step time.Duration, rate float64) {
	for n := rate * step.Seconds(); n > 0; n-- {
		if c.random.Float64() < n {
			c.arrived[c.random.IntN(c.partitions)]++
		}
	}
	left := c.finish[:0]
	for _, e := range c.finish {
		if e.at > now {
			left = append(left, e)
			continue
		}
		c.done[e.partition]++
		c.handled[e.partition]--
	}
	c.finish = left
	for m := range c.members {
		for h, until := range c.busyUntil[m] {
			for until < now+step {
				begin := max(until, now)
				p := c.next(m)
				if p < 0 {
					break
				}
				until = begin + c.takes()
				c.handled[p]++
				c.finish = append(c.finish, event{until, p})
			}
			c.busyUntil[m][h] = until
		}
		if c.commitEvery == 0 || now >= c.commitAt[m] {
			c.commitAt[m] += c.commitEvery
			for p := m; p < c.partitions; p += c.members {
				c.committed[p] = c.done[p]
			}
		}
	}
}

// takes gives how long a record takes.
func (c *simulatedGroup) takes() time.Duration {
	varies := c.random.ExpFloat64()
	if c.work >= 10*time.Second { // a few, of which the mean would be anything
		varies = 0.5 + c.random.Float64()
	}
	return time.Duration(varies * float64(c.work))
}

// next gives a partition of a member that has something to do, the first one for
// as long as it has: that is how polls come.
func (c *simulatedGroup) next(member int) int {
	for p := member; p < c.partitions; p += c.members {
		if c.arrived[p]-c.done[p]-int64(c.handled[p]) > 0 {
			return p
		}
	}
	return -1
}

// run lets the group work under a load, looks at it every two seconds, and gives
// what came out.
func (c *simulatedGroup) run(load func(now time.Duration) float64, length time.Duration) time.Duration {
	const step, look, describe = 10 * time.Millisecond, 2 * time.Second, 10 * time.Second
	e := &effort{concurrency: c.concurrency}
	begin := time.Unix(0, 0)
	for now := time.Duration(0); now < length; now += step {
		c.step(now, step, load(now))
		if now%describe == 0 {
			e.assigned(c.assigned())
		}
		if now%look == 0 {
			e.begin(begin.Add(now))
			for p := range c.partitions {
				e.partition(c.arrived[p]-c.committed[p], c.committed[p])
			}
			e.end()
		}
	}
	return e.workTime()
}

// What members are seen to work on a record is what they do, however they commit.
func TestWorkTimeIsThatOfASimulatedConsumer(t *testing.T) {
	steady := func(rate float64) func(time.Duration) float64 {
		return func(time.Duration) float64 { return rate }
	}
	bursts := func(rate float64) func(time.Duration) float64 { // a third of the time, three times as much
		return func(now time.Duration) float64 {
			if now%(90*time.Second) < 30*time.Second {
				return 3 * rate
			}
			return 0
		}
	}
	for _, work := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, time.Second, 15 * time.Second} {
		for _, commitEvery := range []time.Duration{0, 5 * time.Second} {
			for _, concurrency := range []int{1, 4} {
				for _, crowd := range []struct{ partitions, members int }{{1, 1}, {6, 2}} {
					for name, tt := range map[string]struct {
						load  func(float64) func(time.Duration) float64
						share float64 // of what the members can do
						known bool    // something must be found out
					}{
						"too much":      {steady, 1.5, true},
						"all they can":  {steady, 1, false},
						"bursts":        {bursts, 0.7, true},
						"most they can": {steady, 0.8, false},
						"little":        {steady, 0.1, false},
					} {
						can := float64(crowd.members*concurrency) / work.Seconds()
						if can > 5000 {
							continue // too many to simulate
						}
						c := newSimulatedGroup(1, crowd.partitions, crowd.members, concurrency, work, commitEvery)
						got := c.run(tt.load(tt.share*can), 5*time.Minute)
						ratio := got.Seconds() / work.Seconds()
						where := fmt.Sprintf("%s of %s, commits every %s, %d at once, %d members of %d partitions", name, work, commitEvery, concurrency, crowd.members, crowd.partitions)
						if got == 0 {
							if tt.known && work < 10*time.Second {
								t.Errorf("%s: not found out", where)
							}
							continue
						}
						tolerance := 1.3
						if work > 10*time.Second && tt.share < 1 {
							tolerance = 1.6 // few records tell
						}
						off := math.Abs(math.Log(ratio))
						if off > math.Log(tolerance) {
							t.Errorf("%s: found %s, %.2f times", where, got, ratio)
						}
					}
				}
			}
		}
	}
}

// A member that is seen with something to do at each commit, but had nothing in
// between, was not busy.
func TestWorkTimeKnowsPausesBetweenCommits(t *testing.T) {
	for name, tt := range map[string]struct {
		goals [3]int64 // at the looks from one commit to the next, of 30 records
		known bool
	}{
		"most came just before the commit": {[3]int64{5, 5, 55}, false},
		"all were there":                   {[3]int64{55, 55, 55}, true},
	} {
		e := &effort{concurrency: 1}
		at := time.Unix(0, 0)
		for i := range int64(60) {
			e.begin(at)
			done := 30 * (i / 3)
			e.partition(tt.goals[i%3]+30*(i/3)-done, done)
			e.end()
			e.assigned(map[string][]int32{"member": {0}})
			at = at.Add(2 * time.Second)
		}
		if known := e.workTime() > 0; known != tt.known {
			t.Errorf("%s: found %s", name, e.workTime())
		}
	}
}

// What was done counts only between two times at which a member had the same.
func TestWorkTimeForgetsWhatWasDoneAcrossARebalance(t *testing.T) {
	e := &effort{concurrency: 1}
	at := time.Unix(0, 0)
	done := [2]int64{}
	for i := range 90 {
		// For a minute one member has both, and then each of two has one: each
		// does ten a second. What says so comes late.
		second := i >= 30
		owned := map[string][]int32{"first": {0, 1}}
		if i >= 34 {
			owned = map[string][]int32{"first": {0}, "second": {1}}
		}
		done[0] += 10
		if second {
			done[0] += 10
			done[1] += 20
		} else {
			done[1] += 10
		}
		e.begin(at)
		e.partition(1000, done[0])
		e.partition(1000, done[1])
		e.end()
		if i%5 == 4 {
			e.assigned(owned)
		}
		if got := e.workTime(); got != 0 && (got < 99*time.Millisecond || got > 101*time.Millisecond) {
			t.Fatalf("look %d: found %s, want 100ms", i, got)
		}
		at = at.Add(2 * time.Second)
	}
	if e.workTime() == 0 {
		t.Fatal("not found out")
	}
}

// Work that has become faster is noticed although nobody is busy any more.
func TestWorkTimeFallsWithWhatIsDone(t *testing.T) {
	e := &effort{concurrency: 2}
	at := time.Unix(0, 0)
	done := int64(0)
	look := func(n, left int64) {
		done += n
		e.begin(at)
		e.partition(left, done)
		e.end()
		e.assigned(map[string][]int32{"member": {0}})
		at = at.Add(2 * time.Second)
	}
	for range 60 {
		look(10, 1000)
	}
	if got := e.workTime(); got != 400*time.Millisecond {
		t.Fatalf("found %s for two at once, ten in two seconds", got)
	}
	for range 60 {
		look(100, 0)
	}
	if got := e.workTime(); got != 40*time.Millisecond {
		t.Fatalf("found %s though two hands did a hundred in two seconds", got)
	}
}
