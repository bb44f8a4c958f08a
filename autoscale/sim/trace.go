package sim

import (
	"math"
	"math/rand/v2"
)

// Times are in seconds since the start of a trace.

// Trace is what arrives, and what goes wrong.
type Trace struct {
	Name string
	// Length is how long it takes.
	Length float64
	// Rate gives arrivals per second at a time.
	Rate func(t float64) float64
	// Service draws how long a worker works on a record. Its mean is MeanService.
	Service func(*rand.Rand) float64
	// PoisonFrom and PoisonTo are when partition 7 does not move.
	PoisonFrom, PoisonTo float64
	// OutageFrom and OutageTo are when the broker is away.
	OutageFrom, OutageTo float64
}

// MeanService is the mean of all service times.
const MeanService = 0.5

// poisoned is the partition that does not move.
const poisoned = 7

const (
	minute = 60
	hour   = 3600
)

// Traces gives all of them. Loads are about 12 workers, 25 at most.
func Traces() []Trace {
	constant := func(rate float64) func(float64) float64 {
		return func(float64) float64 { return rate }
	}
	return []Trace{
		{Name: "steady", Length: hour, Rate: constant(24), Service: exponential},
		{Name: "day and night", Length: 4 * hour, Service: exponential, Rate: func(t float64) float64 {
			return 21 - 19*math.Cos(2*math.Pi*t/(4*hour))
		}},
		{Name: "tenfold spike", Length: hour, Service: exponential, Rate: func(t float64) float64 {
			if t >= 20*minute && t < 30*minute {
				return 50
			}
			return 5
		}},
		{Name: "on and off", Length: 90 * minute, Service: exponential, Rate: func(t float64) float64 {
			if within := math.Mod(t, 30*minute); within >= 10*minute && within < 15*minute {
				return 24
			}
			return 0
		}},
		{Name: "ramp", Length: hour, Service: exponential, Rate: func(t float64) float64 {
			switch {
			case t < 40*minute:
				return 2 + 46*t/(40*minute)
			case t < 50*minute:
				return 48
			}
			return 48 - 46*(t-50*minute)/(10*minute)
		}},
		{Name: "heavy tail", Length: hour, Rate: constant(20), Service: lognormal},
		{Name: "poisoned partition", Length: hour, Rate: constant(20), Service: exponential, PoisonFrom: 15 * minute, PoisonTo: 45 * minute},
		{Name: "broker outage", Length: hour, Service: exponential, OutageFrom: 20 * minute, OutageTo: 27 * minute, Rate: func(t float64) float64 {
			// Who was turned away comes again.
			if t >= 27*minute && t < 29*minute {
				return 40
			}
			return 20
		}},
	}
}

// exponential draws most service times.
func exponential(r *rand.Rand) float64 { return MeanService * r.ExpFloat64() }

// lognormal has a tail: one in a thousand takes about 35 times the mean.
func lognormal(r *rand.Rand) float64 {
	const sigma = 1.5
	return MeanService * math.Exp(sigma*r.NormFloat64()-sigma*sigma/2)
}

// record is one of a partition's log.
type record struct{ at, service float64 }

// draw gives the logs of all partitions: a Poisson process, spread by random keys.
func (tr Trace) draw(seed uint64, partitions int) [][]record {
	arrivals := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a simulation that can be repeated
	services := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // the same
	logs := make([][]record, partitions)
	peak := tr.peak()
	for t := arrivals.ExpFloat64() / peak; t < tr.Length; t += arrivals.ExpFloat64() / peak {
		if arrivals.Float64()*peak >= tr.Rate(t) || tr.out(t) {
			continue
		}
		p := arrivals.IntN(partitions)
		logs[p] = append(logs[p], record{at: t, service: tr.Service(services)})
	}
	return logs
}

// peak gives the largest rate.
func (tr Trace) peak() float64 {
	peak := 0.0
	for t := 0.0; t < tr.Length; t += 5 {
		peak = max(peak, tr.Rate(t))
	}
	return peak
}

// out tells whether the broker is away.
func (tr Trace) out(t float64) bool { return t >= tr.OutageFrom && t < tr.OutageTo }

// stuck tells whether a partition does not move.
func (tr Trace) stuck(partition int, t float64) bool {
	return partition == poisoned && t >= tr.PoisonFrom && t < tr.PoisonTo
}

// warmUp is not counted: all policies begin with nothing, some in the middle of
// traffic. How they come from zero is for "on and off" to tell.
const warmUp = 2 * minute

// counts tells whether a record can be in time at all, whatever the policy: not
// in the partition that is poisoned, and not just before the broker goes away.
func (tr Trace) counts(partition int, at, target float64) bool {
	if tr.PoisonTo > 0 && partition == poisoned {
		return false
	}
	return at >= warmUp && at < tr.Length-target && (at < tr.OutageFrom-target || at >= tr.OutageFrom)
}
