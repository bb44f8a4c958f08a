package sim

// fixed is a number that somebody chose.
type fixed int

// Fixed is chosen for the highest rate, with a sixth to
// spare, so that the partitions are shared evenly.
func Fixed(p Params, tr Trace) Policy {
	need := tr.peak() * MeanService * 7 / 6
	each := max(1, int(float64(p.Partitions)/need))
	return fixed(min(p.Max, (p.Partitions+each-1)/each))
}

func (f fixed) Name() string { return "fixed, for the peak" }

func (f fixed) Workers(float64, *World) int { return int(f) }
