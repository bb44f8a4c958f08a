package sim

import "math"

// fixed is a number that somebody chose.
type fixed int

// Fixed is chosen for the highest rate, with a sixth to spare.
func Fixed(p Params, tr Trace) Policy {
	return fixed(min(p.Max, int(math.Ceil(tr.peak()*MeanService*7/6))))
}

func (f fixed) Name() string { return "fixed, for the peak" }

func (f fixed) Workers(float64, *World) int { return int(f) }
