package sim

import "math"

// knative is Knative's pod autoscaler with its defaults, for workers that take
// one request at a time. Its concurrency is what waits and what is worked on,
// as it would be if the records came as requests.
type knative struct {
	next    float64
	samples []float64 // concurrency each second, the last minute
	panicAt float64   // when it last had reason to panic
	panics  bool
	most    int // the most it asked for in this panic
	zeroAt  float64
	last    int
}

// Its defaults: averages over 60 s and 6 s, aiming at 70 % of what a worker
// can take, in a panic from twice of what is ready, halving at most on the
// way down, and 30 s of grace before the last one goes.
const (
	knativeTick   = 2
	knativeStable = 60
	knativePanic  = 6
	knativeAim    = 0.7
	knativeGrace  = 30
)

// Knative is its KPA.
func Knative() Policy { return &knative{zeroAt: -1} }

func (k *knative) Name() string { return "Knative KPA" }

func (k *knative) Workers(now float64, w *World) int {
	if w.trace.out(now) {
		return k.last // nobody reports
	}
	lag := w.Lag()
	if now == math.Trunc(now) {
		k.samples = append(k.samples, float64(lag))
		if len(k.samples) > knativeStable {
			k.samples = k.samples[1:]
		}
	}
	if k.last == 0 && lag > 0 { // the activator pokes it
		k.next = now
	}
	if now < k.next {
		return k.last
	}
	k.next = now + knativeTick
	ready := max(1, w.Ready())
	stable := k.average(knativeStable)
	want := min(int(math.Ceil(stable/knativeAim)), 1000*ready)
	want = max(want, ready/2)
	burst := min(int(math.Ceil(k.average(knativePanic)/knativeAim)), 1000*ready)
	if burst >= 2*ready {
		if !k.panics {
			k.panics, k.most = true, 0
		}
		k.panicAt = now
	} else if now-k.panicAt > knativeStable {
		k.panics = false
	}
	if k.panics {
		k.most = max(k.most, burst, want, ready)
		want = k.most
	}
	if stable > 0 || lag > 0 {
		k.zeroAt = -1
		want = max(want, 1)
	} else {
		if k.zeroAt < 0 {
			k.zeroAt = now
		}
		if want = 0; now-k.zeroAt < knativeGrace && k.last > 0 {
			want = 1
		}
	}
	k.last = min(want, w.Max, w.Partitions)
	return k.last
}

// average gives the mean of the last samples.
func (k *knative) average(seconds int) float64 {
	recent := k.samples[max(0, len(k.samples)-seconds):]
	sum := 0.0
	for _, s := range recent {
		sum += s
	}
	return sum / math.Max(1, float64(len(recent)))
}
