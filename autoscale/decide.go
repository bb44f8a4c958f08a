package autoscale

import (
	"math"
	"time"
)

// Decision is how many workers a topic should have, and why.
type Decision struct {
	// At is when the look was taken that it is made from.
	At time.Time
	// Workers is the number there should be, From the one there should have been before.
	Workers, From int
	// Wanted is what the load would take by itself, without pace and budget.
	Wanted int
	// ForInflow and ForBacklog are the two parts of the formula, in workers.
	ForInflow, ForBacklog float64
	// Inflow and Outflow are records per second, Backlog the records not done.
	// What is poisoned or paused is not in them.
	Inflow, Outflow float64
	Backlog         int64
	// WorkTime is how long a worker works on a record.
	WorkTime time.Duration
	// Gradient is inflow against what the workers could do: above 1 the backlog
	// grows. 0 where there are no workers, or the work time is not known.
	Gradient float64
	// Hot lists partitions into which more comes than one worker can do, Poisoned
	// those that do not move or fail again and again.
	Hot, Poisoned []int32
	// Since is when the first look was taken, KnownAt when all was last known,
	// BusyAt when there was last something to do, or it was not known.
	Since, KnownAt, BusyAt time.Time
	// Reason says all this in a sentence.
	Reason string

	enough int   // what was enough: for a while the number is not lowered below it
	why    bound // what kept it from the formula, and from following it at once
	kept   keep
}

// slack keeps the number from following the noise of its load: a raise has to be
// missing by more than this share of it. The rest shows as backlog soon.
const slack = 0.02

// patience is the part of the drain target that a backlog may take to be worked
// off without bringing more workers.
const patience = 1.0 / 3

// mostRoom bounds how much of a worker's time is left free so that records do
// not wait for one another: where one takes as long as the target, no room helps.
const mostRoom = 0.5

// A number that was too few is not tried again for an inflow of at least alike
// of what it was, until it was forgotten: after so many times DownAfter.
const (
	forget = 60
	alike  = 0.93
)

// Decide says how many workers there should be at the last look of a history:
//
//	work time × (inflow + backlog / drain) / concurrency, rounded up
//
// between Min and Max, and no more than can work at once. It is a pure function.
func Decide(c Config, h History) Decision {
	c = c.withDefaults()
	if len(h.Looks) == 0 {
		return Decision{Workers: c.floor(), From: c.floor(), Reason: "nothing was measured yet"}
	}
	now := h.Looks[len(h.Looks)-1]
	l := loadOf(c, h)
	d := Decision{
		At: now.At, From: now.Workers,
		ForInflow: l.inWorkers, ForBacklog: l.behind,
		Inflow: l.inflow, Outflow: l.outflow, Backlog: l.backlog, WorkTime: l.workTime,
		Hot: l.hot, Poisoned: l.poisoned,
	}
	d.Since, d.KnownAt, d.BusyAt = h.Looks[0].At, h.Looks[0].At, h.Looks[0].At
	if len(h.Decisions) > 0 {
		last := h.Decisions[len(h.Decisions)-1]
		d.From, d.Since, d.KnownAt, d.BusyAt = last.Workers, last.Since, last.KnownAt, last.BusyAt
	}
	if l.known {
		d.KnownAt = now.At
	}
	if l.busy || !l.known {
		d.BusyAt = now.At
	}
	if d.At.Sub(d.BusyAt) >= c.Idle {
		// A few records, minutes ago, are still a rate over minutes.
		l.forInflow, l.evenly, d.ForInflow = 0, 0, 0
	}
	if capacity := float64(d.From * c.Concurrency); capacity > 0 {
		d.Gradient = l.inflow * l.workTime.Seconds() / capacity
	}

	var why bound
	d.Wanted, why = c.within(now, l, c.workers(l, now, 0))
	missing := c.missing(now, l, d.From)
	d.enough = d.Wanted
	if few := c.tooFew(h, d); few > 0 {
		d.enough = max(d.enough, min(few+1, d.From))
	}

	var kept keep
	d.Workers, kept = c.pace(h, d, l, missing)
	d.why, d.kept = why, kept
	d.Workers = min(max(d.Workers, c.Min), c.Max)
	if kept == heldUnknown || kept == heldStuck {
		d.enough = d.Workers // what was held is not lowered as soon as something is known
	}
	d.Reason = d.reason(c, now, l, why, kept)
	return d
}

// missing gives the number there must be at least, where there should be n.
//
// What counts is the backlog there will be once more workers could have come:
// n that are too few let it grow until then, n that are enough work it off by
// themselves. Without that each rebalance, which leaves a backlog, would bring the next.
func (c Config) missing(now Measurement, l load, n int) int {
	steady := l
	steady.forBacklog = 0
	inflow, _ := c.within(now, l, c.workers(steady, now, -slack))
	if change := (l.forInflow - float64(n)) * c.Lead.Seconds() / c.Drain.Seconds(); change >= 0 {
		l.forBacklog += change
	} else {
		l.forBacklog = min(l.forBacklog, max(0, l.behind+change))
	}
	all, _ := c.within(now, l, c.workers(l, now, -slack))
	if inflow <= n && l.forBacklog <= patience*float64(n) {
		return min(all, n)
	}
	return all
}

// tooFew gives the largest number that stood for a while and was raised lately
// although no less came in than now does, 0 if there is none. A constant load settles by that.
func (c Config) tooFew(h History, d Decision) int {
	n := 0
	var since time.Time
	for _, old := range h.Decisions {
		if old.Workers == old.From {
			continue
		}
		if old.Workers > old.From && old.At.Sub(since) >= c.DownAfter && old.ForInflow > 0 &&
			d.At.Sub(old.At) < forget*c.DownAfter && d.ForInflow >= alike*old.ForInflow {
			n = max(n, old.From)
		}
		since = old.At
	}
	return n
}

// workers is the formula, for a load that is larger by a share of itself.
func (c Config) workers(l load, now Measurement, more float64) int {
	n := int(math.Ceil((l.forInflow+l.forBacklog)*(1+more) - 1e-9))
	if l.evenly <= 0 || c.Keyed {
		return n
	}
	// Whole partitions are shared: some workers have one more than others, and
	// theirs must leave room.
	partitions := len(now.Partitions)
	each := max(1, int(math.Min(float64(partitions), (1-l.room+1e-9)/(l.evenly*(1+more)))))
	return max(n, (partitions+each-1)/each)
}

// room gives the share of a worker's time that has to stay free for 99 of 100
// records not to wait for longer than the target. Each worker is a queue of its own:
// records wait for one another long before all of its time is taken, and the
// more, the more their work varies. (That of an M/G/1 queue, whose waits
// beyond T have about the share ρ exp(-(1-ρ) T / residual work).)
func (c Config) room(workTime time.Duration, spread float64) float64 {
	if spread <= 0 {
		spread = 1
	}
	residual := workTime.Seconds() * (1 + spread*spread) / 2 / float64(c.Concurrency)
	room := 0.0
	for range 5 { // towards the fixed point
		room = math.Min(mostRoom, residual/c.Drain.Seconds()*math.Log(100*(1-room)))
	}
	return room
}

// bound names what kept a number from being what the formula gave.
type bound int

const (
	noBound bound = iota
	boundMin
	boundMax
	boundPartitions
	boundKeys
	boundSome // at least one as long as there is something to do
)

// within keeps a number within the configuration and what can work at once.
func (c Config) within(now Measurement, l load, n int) (int, bound) {
	why := noBound
	lower := func(limit int, b bound) {
		if n > limit {
			n, why = limit, b
		}
	}
	if n == 0 && l.busy {
		n, why = 1, boundSome
	}
	if c.Keyed && now.Keys >= 0 {
		lower(max(1, (now.Keys+c.Concurrency-1)/c.Concurrency), boundKeys)
	}
	if partitions := len(now.Partitions) - l.paused; !c.Keyed && partitions > 0 {
		lower(partitions, boundPartitions)
	}
	lower(c.Max, boundMax)
	if n < c.Min {
		n, why = c.Min, boundMin
	}
	return n, why
}
