package osmosis

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// Workers get what env says, by value, by placeholder and by name; a reload that
// changes it starts other workers.
func TestProcessEnvironment(t *testing.T) {
	t.Setenv("OSMOSIS_TEST_PASSED", "from Caddy")
	t.Setenv("OSMOSIS_TEST_PLACED", "placed")
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &ProcessScaler{
		Command: []string{"worker"}, PassEnv: []string{"OSMOSIS_TEST_PASSED", "OSMOSIS_TEST_UNSET"},
		Env: map[string]string{"LEVEL": "debug", "EMPTY": "", "PLACED": "{env.OSMOSIS_TEST_PLACED}", "TOKEN": "{file." + filepath.ToSlash(file) + "}"},
	}
	if err := s.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	if want := []string{"OSMOSIS_TEST_PASSED=from Caddy", "EMPTY=", "LEVEL=debug", "PLACED=placed", "TOKEN=secret"}; !slices.Equal(s.environment, want) {
		t.Errorf("%q, want %q", s.environment, want)
	}
	with, _ := s.Crew(autoscale.Job{})
	if without, _ := (&ProcessScaler{Command: s.Command}).Crew(autoscale.Job{}); with == without {
		t.Error("another environment is the same crew")
	}
	s.Env["TOKEN"] = "{file." + filepath.ToSlash(file) + ".none}"
	if err := s.Provision(caddy.Context{}); err == nil || !strings.HasPrefix(err.Error(), "process scaler: env TOKEN: ") {
		t.Errorf("a file that is missing: %v", err)
	}
	for _, wrong := range []*ProcessScaler{{Env: map[string]string{"A=b": "c"}}, {PassEnv: []string{""}}, {PassEnv: []string{"OSMOSIS_KAFKA"}}} {
		wrong.Command = s.Command
		if wrong.Validate() == nil {
			t.Errorf("%+v is valid", wrong)
		}
	}
}
