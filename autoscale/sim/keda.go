package sim

import "math"

// keda is KEDA's Kafka scaler, which gives its lag to a HorizontalPodAutoscaler
// and scales between zero and one by itself.
type keda struct {
	name string
	// threshold is lagThreshold: records of lag a worker.
	threshold float64
	// polling and cooldown are pollingInterval and cooldownPeriod.
	polling, cooldown float64
	// stabilize is the HPA's scaleDown.stabilizationWindowSeconds.
	stabilize float64

	nextPoll, nextSync float64
	activeAt           float64
	wanted             []advice
}

// advice is what the HPA would have had at some time.
type advice struct {
	at float64
	n  int
}

// The HPA's defaults: how often it looks, how far off its target it does
// nothing, and how much it adds in one period.
const (
	hpaSync      = 15
	hpaTolerance = 0.1
	hpaPods      = 4
)

// KEDA is its Kafka scaler with the defaults of KEDA and of the HPA.
func KEDA() Policy {
	return &keda{name: "KEDA, defaults", threshold: 10, polling: 30, cooldown: 300, stabilize: 300}
}

// KEDATuned has the most in time of twenty settings that were tried on these
// traces, with lagThresholds from 3 to 20 and windows from 1 to 10 minutes: hardly any
// lag a worker, a short polling interval and cooldown, and the longest window.
func KEDATuned() Policy {
	return &keda{name: "KEDA, tuned", threshold: 3, polling: 5, cooldown: 60, stabilize: 600}
}

func (k *keda) Name() string { return k.name }

func (k *keda) Workers(now float64, w *World) int {
	n := w.asked
	if w.trace.out(now) {
		return n // without a metric neither changes anything
	}
	if now >= k.nextPoll {
		k.nextPoll = now + k.polling
		switch lag := w.Lag(); {
		case lag > 0: // above activationLagThreshold
			k.activeAt = now
			n = max(n, 1)
		case n > 0 && now-k.activeAt >= k.cooldown:
			k.wanted = nil
			return 0
		}
	}
	if now < k.nextSync || n == 0 {
		return n
	}
	k.nextSync = now + hpaSync
	// allowIdleConsumers is off: no more than the partitions.
	lag := math.Min(float64(w.Lag()), float64(w.Partitions)*k.threshold)
	want := n
	if ratio := lag / (k.threshold * float64(n)); math.Abs(ratio-1) > hpaTolerance {
		want = int(math.Ceil(lag / k.threshold))
	}
	want = min(max(want, 1), w.Max)
	for len(k.wanted) > 0 && now-k.wanted[0].at > k.stabilize {
		k.wanted = k.wanted[1:]
	}
	k.wanted = append(k.wanted, advice{now, want})
	if want > n {
		return min(want, max(2*n, n+hpaPods))
	}
	for _, old := range k.wanted {
		want = max(want, min(old.n, n))
	}
	return want
}
