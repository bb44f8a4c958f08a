package sim

import (
	"math"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// ours measures as a gateway does and asks autoscale.Decide.
type ours struct {
	config  autoscale.Config
	history autoscale.History
	next    float64
	worked  []worked
	last    autoscale.Decision
	watch   func(autoscale.Decision)
}

// worked is what had been done at some time.
type worked struct {
	at, busy, square float64
	done             int64
}

// every is the interval of looks, in seconds.
const every = 2

// epoch is where virtual time begins.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// Ours is this project's policy, with its defaults.
func Ours(p Params) Policy {
	return &ours{config: autoscale.Config{Max: p.Max, Drain: time.Duration(p.Target * float64(time.Second))}}
}

func (o *ours) Name() string { return "Osmosis" }

func (o *ours) Workers(now float64, w *World) int {
	// From zero it wakes when a record arrives, not at the next look.
	woken := w.asked == 0 && !w.trace.out(now) && w.Lag() > 0
	if now < o.next && !woken {
		return o.last.Workers
	}
	o.next = now + every
	m := o.measure(now, w)
	o.history.Look(m)
	o.last = autoscale.Decide(o.config, o.history)
	if o.last.LookAgain > 0 {
		o.next = now + o.last.LookAgain.Seconds()
	}
	o.history.Decided(o.config, o.last)
	if o.watch != nil {
		o.watch(o.last)
	}
	return o.last.Workers
}

// measure looks at the world as a broker lets one.
func (o *ours) measure(now float64, w *World) autoscale.Measurement {
	m := autoscale.Measurement{
		At: epoch.Add(time.Duration(now * float64(time.Second))), Workers: w.Ready(), Keys: autoscale.Unknown,
		Partitions: make([]autoscale.Partition, len(w.parts)),
	}
	m.WorkTime, m.WorkSpread = o.workTime(now, w)
	for i, p := range w.parts {
		if w.trace.out(now) {
			m.Partitions[i] = autoscale.Partition{Backlog: autoscale.Unknown, Produced: autoscale.Unknown, Done: autoscale.Unknown}
			continue
		}
		m.Partitions[i] = autoscale.Partition{
			Backlog: int64(p.arrived - p.done), Produced: int64(p.arrived), Done: int64(p.done),
			Stalled: time.Duration((now - p.movedAt) * float64(time.Second)),
		}
	}
	return m
}

// workTime is what busy workers took a record, and how much that varies: over
// the last minutes, and over more where few were done.
func (o *ours) workTime(now float64, w *World) (mean time.Duration, spread float64) {
	const long, many = 300, 1000
	o.worked = append(o.worked, worked{now, w.busy, w.square, w.done})
	for len(o.worked) > 2 && now-o.worked[1].at >= long && w.done-o.worked[1].done >= many {
		o.worked = o.worked[1:]
	}
	first := o.worked[0]
	n := float64(w.done - first.done)
	if n == 0 {
		return 0, 0
	}
	seconds := (w.busy - first.busy) / n
	if n > 30 {
		spread = math.Sqrt(max(0, (w.square-first.square)/n-seconds*seconds)) / seconds
	}
	return time.Duration(seconds * float64(time.Second)), spread
}
