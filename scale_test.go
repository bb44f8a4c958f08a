package osmosis

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// What a configuration says of limits is what decisions are bound by.
func TestLimits(t *testing.T) {
	const second = caddy.Duration(time.Second)
	for name, test := range map[string]struct {
		scale Scale
		own   int
		want  autoscale.Config
	}{
		"defaults": {Scale{}, 0, autoscale.Config{Max: 10}},
		"all": {
			Scale{Min: 2, Max: 5, Drain: 3 * second, Idle: 300 * second, Concurrency: 4}, 0,
			autoscale.Config{Min: 2, Max: 5, Drain: 3 * time.Second, Idle: 5 * time.Minute, Concurrency: 4, DownAfter: 30 * time.Second},
		},
		// Not after 30s, which is what a lower number waits for elsewhere.
		"soon idle": {Scale{Idle: 5 * second}, 0, autoscale.Config{Max: 10, Idle: 5 * time.Second, DownAfter: 5 * time.Second}},
		"deliver": {
			Scale{scaler: new(DeliverScaler)}, 32,
			autoscale.Config{Min: 1, Max: 32, Keyed: true, Lead: time.Second, UpEvery: time.Second, Rebalances: 100_000},
		},
		"deliver within": {
			Scale{Min: 4, Max: 64, scaler: new(DeliverScaler)}, 32,
			autoscale.Config{Min: 4, Max: 64, Keyed: true, Lead: time.Second, UpEvery: time.Second, Rebalances: 100_000},
		},
		"deliver at least": {
			Scale{Min: 40, scaler: new(DeliverScaler)}, 32,
			autoscale.Config{Min: 40, Max: 40, Keyed: true, Lead: time.Second, UpEvery: time.Second, Rebalances: 100_000},
		},
	} {
		got := test.scale.limits(test.own)
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The same command for the same job is the same crew, and any other is not.
func TestProcessCrewKey(t *testing.T) {
	job := autoscale.Job{Kafka: "k:1", Topic: "t", Group: "g"}
	key := func(job autoscale.Job, s ProcessScaler) string {
		k, _ := s.Crew(job)
		return k
	}
	command := []string{"worker", "-x"}
	seen := map[string]bool{key(job, ProcessScaler{Command: command}): true}
	if !seen[key(job, ProcessScaler{Command: command})] {
		t.Error("equal crews differ")
	}
	other := job
	other.Group = "h"
	for _, k := range []string{
		key(job, ProcessScaler{Command: []string{"worker -x"}}), key(job, ProcessScaler{Command: []string{"worker", "-y"}}),
		key(other, ProcessScaler{Command: command}), key(job, ProcessScaler{Command: command, GracePeriod: caddy.Duration(time.Minute)}),
	} {
		if seen[k] {
			t.Errorf("%s is another crew's key", k)
		}
		seen[k] = true
	}
}
