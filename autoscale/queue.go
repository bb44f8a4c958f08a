package autoscale

import "math"

// late and tolerable are the shares of records that may wait for longer than the
// drain target because others are in front of them: the first one is aimed at,
// and more than the second brings workers.
const (
	late      = 0.006
	tolerable = 0.01
)

// mostSpare bounds what is spent against that: at most so many workers for the
// work of one. Where a record takes as long as the target, no number helps.
const mostSpare = 2.9

// forWaits gives the smallest number of workers, from n on, with which no more
// than a share of what comes has to wait for too long. Each worker is a queue of
// its own: records wait for one another long before all of its time is taken.
// What shares its worker with a partition that catches up waits in any case; then
// as many are taken as there may be, so that little shares it.
func (c Config) forWaits(l load, n int, share float64) int {
	most := min(l.shared, int(math.Ceil(mostSpare*l.forInflow-1e-9)))
	for n < most && (l.catchingUp > 0 || c.lateShare(l, n) > share) {
		n++
	}
	return n
}

// lateShare is the share of records that wait for longer than the drain target
// where n workers share the partitions, some of them one more than others.
//
// It is that of an M/G/1 queue, whose waits beyond T have about the share
// ρ exp(-(1-ρ) T / residual work).
func (c Config) lateShare(l load, n int) float64 {
	n = max(n, 1)
	of := func(partitions int) float64 {
		busy := l.forInflow * float64(partitions) / float64(l.shared)
		if busy >= 1 {
			return 1
		}
		return busy * math.Exp(-(1-busy)*c.Drain.Seconds()/math.Max(l.residual, 1e-9))
	}
	each, more := l.shared/n, l.shared%n
	largest := float64(more*(each+1)) / float64(l.shared)
	return largest*of(each+1) + (1-largest)*of(each)
}

// residual is how long the record that a worker works on goes on taking, seen
// from one that comes meanwhile, in seconds. Records vary by spread, 1 if unknown.
func (c Config) residual(workTime, spread float64) float64 {
	if spread <= 0 {
		spread = 1
	}
	return workTime * (1 + spread*spread) / 2 / float64(c.Concurrency)
}
