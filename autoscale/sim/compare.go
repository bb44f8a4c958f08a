package sim

import "slices"

// Row is what a policy came to on a trace, over all seeds.
type Row struct {
	Policy string
	// InTime and WorkerSeconds are means over the seeds. Worst is the lowest InTime.
	InTime, Worst, WorkerSeconds float64
	// Changes and Reversals are means, Least is the smallest of all.
	Changes, Reversals float64
	Least              int
	// First is the run of the first seed.
	First Result
}

// Comparison is all policies on one trace.
type Comparison struct {
	Trace Trace
	Seeds int
	Rows  []Row
	// Work is the mean of the time that records took by themselves: nothing
	// costs less.
	Work float64
}

// Names of the rows that are held against each other.
const (
	oursRow    = "Osmosis"
	optimumRow = "clairvoyant"
)

// Compare plays all policies on a trace, for so many seeds from the first on.
func Compare(p Params, tr Trace, first uint64, seeds int) Comparison {
	c := Comparison{Trace: tr, Seeds: seeds}
	policies := []func() Policy{
		func() Policy { return Ours(p) },
		KEDA,
		KEDATuned,
		Knative,
		func() Policy { return Fixed(p, tr) },
	}
	runs := map[string][]Result{}
	var names []string
	add := func(name string, r Result) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		runs[name] = append(runs[name], r)
	}
	for n := range uint64(seeds) {
		seed := first + n
		logs := tr.draw(seed, p.Partitions)
		for _, begin := range policies {
			policy := begin()
			add(policy.Name(), run(p, tr, logs, seed, policy))
		}
		add(optimumRow, clairvoyant(p, tr, logs, seed))
	}
	for _, name := range names {
		c.Rows = append(c.Rows, row(name, runs[name]))
	}
	for _, r := range runs[optimumRow] {
		c.Work += r.Work / float64(seeds)
	}
	return c
}

// row sums up a policy.
func row(name string, runs []Result) Row {
	r := Row{Policy: name, Worst: 1, Least: runs[0].Least, First: runs[0]}
	n := float64(len(runs))
	for _, result := range runs {
		r.InTime += result.InTime / n
		r.WorkerSeconds += result.WorkerSeconds / n
		r.Changes += float64(result.Changes) / n
		r.Reversals += float64(result.Reversals) / n
		r.Worst = min(r.Worst, result.InTime)
		r.Least = min(r.Least, result.Least)
	}
	return r
}

// Row finds a policy.
func (c Comparison) Row(name string) Row {
	for _, r := range c.Rows {
		if r.Policy == name {
			return r
		}
	}
	return Row{}
}

// alike is how far two shares may be apart and count as the same.
const alike = 0.001

// BetterKEDA gives the better one of its two rows: more in time, or as much for less.
func (c Comparison) BetterKEDA() Row {
	a, b := c.Row("KEDA, defaults"), c.Row("KEDA, tuned")
	if b.InTime > a.InTime+alike || b.InTime > a.InTime-alike && b.WorkerSeconds < a.WorkerSeconds {
		return b
	}
	return a
}

// Verdict is what this project asks of its policy.
type Verdict struct {
	// BeatsKEDA: at least as much in time as the better KEDA, for no more worker-seconds.
	BeatsKEDA bool
	// Cheapest: for no more worker-seconds than either KEDA, however late that one is.
	Cheapest bool
	// OptimumCan: the clairvoyant has enough in time.
	OptimumCan bool
	// Ratio is worker-seconds against the clairvoyant's; Near is whether it is
	// within 1.2 with enough in time.
	Ratio float64
	Near  bool
}

// Verdict holds ours against the others.
func (c Comparison) Verdict() Verdict {
	mine, other, best := c.Row(oursRow), c.BetterKEDA(), c.Row(optimumRow)
	v := Verdict{
		BeatsKEDA:  mine.InTime >= other.InTime-alike && mine.WorkerSeconds <= other.WorkerSeconds,
		OptimumCan: best.InTime >= goodShare,
		Ratio:      mine.WorkerSeconds / best.WorkerSeconds,
	}
	cheapest := min(c.Row("KEDA, defaults").WorkerSeconds, c.Row("KEDA, tuned").WorkerSeconds)
	v.Cheapest = mine.WorkerSeconds <= cheapest
	v.Near = mine.InTime >= goodShare && v.Ratio <= 1.2
	return v
}
