package sim

import "math"

// schedule is a number of workers for each slot.
type schedule []int

// slot is how long a number stays, in seconds. Each change costs a rebalance.
const slot = 30

func (s schedule) Name() string { return "clairvoyant" }

func (s schedule) Workers(now float64, _ *World) int {
	return s[min(int(now/slot), len(s)-1)]
}

// Good enough for a clairvoyant, and what the others are held against.
const goodShare = 0.99

// clairvoyant knows all arrivals and how long each will take. It plans the
// smoothest work that leaves nothing waiting for longer than a part of the target,
// rounds that to workers with some to spare, tries many such plans
// in the very world they are for, and keeps the cheapest that has enough in time
// (or, where none has, the one that has most). It is the best found, not proven
// to be the best there is.
func clairvoyant(p Params, tr Trace, logs [][]record, seed uint64) Result {
	var best Result
	found := false
	demand := demand(tr, logs)
	try := func(spares ...float64) {
		for _, wait := range []float64{0.1, 0.4, 0.7} {
			curve := smoothest(demand, wait*p.Target)
			for _, spare := range spares {
				for _, even := range []bool{false, true} {
					r := run(p, tr, logs, seed, plan(p, curve, spare, even))
					good := r.InTime >= goodShare
					switch {
					case good && (!found || r.WorkerSeconds < best.WorkerSeconds),
						!found && r.InTime > best.InTime:
						best = r
					}
					found = found || good
				}
			}
		}
	}
	if try(0, 0.05, 0.1, 0.2, 0.35); !found {
		try(0.6, 1, 2, 1000) // the last is all there may be, whenever there is work
	}
	return best
}

// demand gives the work that came until each second.
func demand(tr Trace, logs [][]record) []float64 {
	sums := make([]float64, int(tr.Length)+2)
	for i, log := range logs {
		for _, r := range log {
			if !tr.stuck(i, r.at) {
				sums[int(r.at)+1] += r.service
			}
		}
	}
	for i := 1; i < len(sums); i++ {
		sums[i] += sums[i-1]
	}
	return sums
}

// smoothest gives the work a second of the taut string: the shortest way that
// does nothing before it came and leaves nothing for longer than wait.
func smoothest(demand []float64, wait float64) []float64 {
	late := max(1, int(wait))
	high := func(t int) float64 { return demand[t] }
	low := func(t int) float64 {
		if t == len(demand)-1 {
			return demand[t]
		}
		return demand[max(0, t-late)]
	}
	slopes := make([]float64, len(demand)-1)
	at, done := 0, 0.0
	for at < len(demand)-1 {
		up, down := math.Inf(1), math.Inf(-1) // the funnel
		upAt, downAt := at+1, at+1
		var to int
		var slope float64
		for t := at + 1; ; t++ {
			if t == len(demand) {
				to, slope = downAt, down
				break
			}
			span := float64(t - at)
			most, least := (high(t)-done)/span, (low(t)-done)/span
			if least > up { // it has to turn up where it touches the upper bound
				to, slope = upAt, up
				break
			}
			if most < down {
				to, slope = downAt, down
				break
			}
			if most <= up {
				up, upAt = most, t
			}
			if least >= down {
				down, downAt = least, t
			}
		}
		for t := at; t < to; t++ {
			slopes[t] = slope
		}
		done += slope * float64(to-at)
		at = to
	}
	return slopes
}

// plan makes a schedule of a curve: workers that are needed are asked for in
// time to have started and joined.
func plan(p Params, curve []float64, spare float64, even bool) schedule {
	slots := (len(curve) + slot - 1) / slot
	s := make(schedule, slots)
	lead := int(p.StartTo + p.Pause + 1)
	for i := range s {
		most := 0.0
		for t := i * slot; t < min(len(curve), (i+1)*slot+lead); t++ {
			most = math.Max(most, curve[t])
		}
		need := most * (1 + spare)
		s[i] = int(math.Ceil(need - 1e-6))
		if even && need > 0 {
			each := max(1, int(float64(p.Partitions)/need))
			s[i] = (p.Partitions + each - 1) / each
		}
		s[i] = min(s[i], p.Max)
	}
	return s
}
