package autoscale

import (
	"math"
	"slices"
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
	// What is poisoned, slow or paused is not in them.
	Inflow, Outflow float64
	Backlog         int64
	// WorkTime is how long a worker works on a record.
	WorkTime time.Duration
	// LookAgain is how soon the next look is to be taken, 0 for the usual time.
	LookAgain time.Duration
	// Gradient is inflow against what the workers could do: above 1 the backlog
	// grows. 0 where there are no workers, or the work time is not known.
	Gradient float64
	// Hot lists partitions into which more comes than one worker can do. Poisoned
	// lists those whose record fails again and again, or whose workers die one after
	// the other. Slow lists those where one worker has done nothing for far longer
	// than a record usually takes: it works on a long record, or hangs.
	Hot, Poisoned, Slow []int32
	// Since is when the first look was taken, KnownAt when all was last known,
	// BusyAt when there was last something to do, or it was not known.
	Since, KnownAt, BusyAt time.Time
	// Reason says all this in a sentence.
	Reason string

	enough int // what was enough: for a while the number is not lowered below it
	needed int // the most that was, for as long as fewer have to be
	waits  time.Duration
	why    bound // what kept it from the formula, and from following it at once
	kept   keep
}

// slack keeps the number from following the noise of its load: a raise has to be
// missing by more than this share of it. The rest shows as backlog soon.
const slack = 0.02

// patience is the part of the drain target that a backlog may take to be worked
// off without bringing more workers.
const patience = 1.0 / 3

// leastLeft is the part of the drain target that counts as left at least for what
// waits until a worker can come.
const leastLeft = 1.0 / 3

// While a rise is fresh, or the first records are, the next look is quick.
const (
	fresh = 3 * time.Second
	quick = 500 * time.Millisecond
)

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
		Hot: l.hot, Poisoned: l.poisoned, Slow: l.slow,
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
		l.forInflow, d.ForInflow = 0, 0
	}
	if capacity := float64(d.From * c.Concurrency); capacity > 0 && !l.guessed {
		d.Gradient = l.inflow * l.workTime.Seconds() / capacity
	}

	if l.guessed {
		d.WorkTime = 0
	}
	if first := l.guessed && !l.spent && l.busy && now.At.Sub(h.wokenAt()) < fresh; first || l.jumped {
		d.LookAgain = quick
	}

	var why bound
	d.Wanted, why = c.within(now, l, c.workers(l, 0, late))
	missing := c.missing(h, now, l, d.From)
	d.enough = d.Wanted
	if l.guessed && l.busy && d.From > 0 {
		// Fewer are tried until somebody is busy, which tells how long a record takes.
		if d.enough = d.From; l.few {
			d.enough = (d.From + 1) / 2
		}
	}
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
	if d.From == 0 && d.Workers > 0 {
		d.LookAgain = quick
	}
	d.waits = c.waits(d.From, d.enough, l.guessed && l.busy)
	d.needed = h.neededFor(d.At, d.waits)
	d.Reason = d.reason(c, now, l, why, kept)
	return d
}

// missing gives the number there must be at least, where there should be n.
//
// What counts is the backlog there will be once more workers could have come:
// n that are too few let it grow until then, n that are enough work it off by
// themselves. Without that each rebalance, which leaves a backlog, would bring the next.
func (c Config) missing(h History, now Measurement, l load, n int) int {
	steady := l
	steady.forBacklog = 0
	inflow, _ := c.within(now, l, c.workers(steady, -slack, tolerable))
	lead, drain := c.Lead.Seconds(), c.Drain.Seconds()
	growth := l.forInflow - c.working(h, now.At, n)
	switch {
	case l.spent && !l.growing:
		return n
	case l.guessed: // that what comes until then will be late, on top of it, is too much
		l.forBacklog += math.Max(0, growth) * lead / drain
	case growth >= 0:
		// The share of what comes that is not worked on until then has waited for
		// all of that time, and has so much less of the target left.
		left := drain
		if l.forInflow > 0 {
			left = math.Max(leastLeft*drain, drain-growth/l.forInflow*lead)
		}
		l.forBacklog += growth * lead / left
	default:
		l.forBacklog = math.Min(l.forBacklog, math.Max(0, l.behind+growth*lead/drain))
	}
	all, _ := c.within(now, l, c.workers(l, -slack, tolerable))
	if all > n {
		all, _ = c.within(now, l, c.workers(l, 0, late))
	}
	if inflow <= n && l.forBacklog <= patience*float64(n) {
		return min(all, n)
	}
	return all
}

// working is how many workers there will be on average until one that is asked for
// now works, where n were asked for last: that takes each of them as long, so
// it is as many as there should have been on average for that long until now.
func (c Config) working(h History, at time.Time, n int) float64 {
	sum, counted := 0.0, time.Duration(0)
	for _, d := range slices.Backward(h.Decisions) {
		age := min(at.Sub(d.At), c.Lead)
		sum += float64(d.Workers) * (age - counted).Seconds()
		counted, n = age, d.From
		if age == c.Lead {
			break
		}
	}
	return (sum + float64(n)*(c.Lead-counted).Seconds()) / c.Lead.Seconds()
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

// workers is the formula, for a load that is larger by a share of itself, with
// room so that no more than another share of records waits for too long. By a
// guess there are no more than half as many again as records that wait.
func (c Config) workers(l load, more, late float64) int {
	n := int(math.Ceil((l.forInflow+l.forBacklog)*(1+more) - 1e-9))
	switch {
	case l.guessed:
		return int(math.Min(float64(n), math.Ceil(1.5*float64(l.backlog)/float64(c.Concurrency))))
	case c.Keyed:
		return n
	}
	return c.forWaits(l, n, late)
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
	if partitions := l.shared - l.paused; !c.Keyed && partitions > 0 {
		lower(partitions, boundPartitions)
	}
	lower(c.Max, boundMax)
	if n < c.Min {
		n, why = c.Min, boundMin
	}
	return n, why
}
