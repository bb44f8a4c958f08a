package sim

import (
	"fmt"
	"io"
)

// WriteTable writes comparisons as Markdown.
func WriteTable(out io.Writer, all []Comparison) error {
	w := &writer{out: out}
	w.printf("| trace | policy | in time | worst seed | worker-seconds | changes | turns |\n")
	w.printf("| --- | --- | ---: | ---: | ---: | ---: | ---: |\n")
	for _, c := range all {
		name := c.Trace.Name
		for _, r := range c.Rows {
			w.printf("| %s | %s | %.2f %% | %.2f %% | %.0f | %.0f | %.0f |\n",
				name, r.Policy, 100*r.InTime, 100*r.Worst, r.WorkerSeconds, r.Changes, r.Reversals)
			name = ""
		}
		w.printf("| | the work itself | | | %.0f | | |\n", c.Work)
	}
	w.printf("\n| trace | as good as the better KEDA, both at once | no dearer than either KEDA | worker-seconds against the clairvoyant | 99 %% in time within 1.2 of it |\n")
	w.printf("| --- | --- | --- | ---: | --- |\n")
	for _, c := range all {
		v := c.Verdict()
		near := yes(v.Near)
		if !v.OptimumCan {
			near = "it cannot either"
		}
		w.printf("| %s | %s | %s | %.2f | %s |\n", c.Trace.Name, yes(v.BeatsKEDA), yes(v.Cheapest), v.Ratio, near)
	}
	return w.err
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "**no**"
}

// writer keeps the first error.
type writer struct {
	out io.Writer
	err error
}

func (w *writer) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.out, format, args...)
	}
}
