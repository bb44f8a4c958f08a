package sim

import (
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// still is a world in which so much waits.
func still(p Params, lag, asked int) *World {
	w := &World{Params: p, parts: make([]part, p.Partitions), asked: asked}
	w.parts[0].arrived = lag
	for range asked {
		w.workers = append(w.workers, &worker{joined: true})
	}
	return w
}

func TestKEDA(t *testing.T) {
	p := Defaults()
	k := KEDA()
	steps := []struct {
		now         float64
		lag, asked  int
		want        int
		explanation string
	}{
		{0, 0, 0, 0, "nothing waits"},
		{10, 500, 0, 0, "it polls each 30 s"},
		{30, 500, 0, 5, "active: one, and the HPA adds four at once"},
		{35, 500, 5, 5, "the HPA looks each 15 s"},
		{45, 500, 5, 10, "no more than twice"},
		{60, 5000, 10, 20, "no more than twice"},
		{75, 5000, 20, 40, "no more than twice"},
		{90, 5000, 40, 48, "the most there may be"},
		{105, 460, 48, 48, "within the tolerance"},
		{120, 100, 48, 48, "more were wanted in the last 5 minutes"},
		{405, 100, 48, 48, "still"},
		{421, 100, 48, 10, "not any more"},
		{450, 0, 10, 10, "the last 5 minutes again"},
		{690, 0, 10, 10, "it was active less than 5 minutes ago"},
		{721, 0, 10, 0, "cooled down"},
	}
	for _, s := range steps {
		if got := k.Workers(s.now, still(p, s.lag, s.asked)); got != s.want {
			t.Fatalf("at %.0f s with %d waiting and %d workers: %d, not %d (%s)", s.now, s.lag, s.asked, got, s.want, s.explanation)
		}
	}
	out := still(p, 0, 7)
	out.trace = Trace{OutageTo: 5000}
	if got := k.Workers(2000, out); got != 7 {
		t.Fatalf("%d without a metric", got)
	}
}

func TestKnative(t *testing.T) {
	p := Defaults()
	k := Knative()
	at := 0.0
	tick := func(seconds, lag, asked int) (n int) {
		for range seconds {
			n = k.Workers(at, still(p, lag, asked))
			at++
		}
		return n
	}
	if got := tick(10, 0, 0); got != 0 {
		t.Fatalf("%d for nothing", got)
	}
	if got := tick(1, 7, 0); got < 1 {
		t.Fatalf("%d when the first came", got)
	}
	if got := tick(6, 7, 1); got != 10 { // 7 at 70 %
		t.Fatalf("%d in a panic", got)
	}
	if got := tick(120, 7, 10); got != 10 {
		t.Fatalf("%d when it is calm", got)
	}
	if got := tick(30, 0, 10); got == 0 {
		t.Fatal("zero before the stable window is over")
	}
	if got := tick(100, 0, 1); got != 0 {
		t.Fatalf("%d after the grace period", got)
	}
}

func TestOursAsksForTheFirstWorkerInTheSameTick(t *testing.T) {
	p := Defaults()
	o := Ours(p)
	if got := o.Workers(0, still(p, 0, 0)); got != 0 {
		t.Fatalf("%d for nothing", got)
	}
	if got := o.Workers(p.Tick, still(p, 1, 0)); got != 1 {
		t.Fatalf("%d for the first record, before the next look", got)
	}
}

func TestOursOnTheTraces(t *testing.T) {
	want := map[string]struct {
		inTime        float64
		most, changes int
	}{
		"steady":             {0.985, 48, 12},
		"tenfold spike":      {0.98, 48, 20},
		"on and off":         {0.975, 48, 35},
		"ramp":               {0.985, 48, 50},
		"heavy tail":         {0.96, 48, 30},
		"poisoned partition": {0.99, 36, 16},
		"broker outage":      {0.98, 48, 20},
	}
	for _, tr := range Traces() {
		limits, ok := want[tr.Name]
		if !ok {
			continue // long
		}
		t.Run(tr.Name, func(t *testing.T) {
			o := Ours(Defaults()).(*ours)
			most := 0
			o.watch = func(d autoscale.Decision) {
				if d.At.Sub(epoch) > time.Minute { // before, work times are guessed at
					most = max(most, d.Workers)
				}
			}
			r := play(tr, o)
			if r.InTime < limits.inTime || r.Changes > limits.changes || most > limits.most {
				t.Errorf("%.4f in time, %d changes, %d workers at most", r.InTime, r.Changes, most)
			}
			if tr.OutageTo > 0 && r.Least < 1 {
				t.Errorf("%d workers during the outage", r.Least)
			}
			if tr.Name == "steady" && r.Reversals > 3 {
				t.Errorf("a constant load turned %d times", r.Reversals)
			}
		})
	}
}
