package osmosis

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// rehearsal is a scaler whose workers only note what becomes of them.
type rehearsal string

func (r rehearsal) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	name := fmt.Sprintf("%s for %s as %s within %s by %s", string(r), job.Topic, job.Group, job.Drain, job.Kafka)
	return name, func() autoscale.Crew {
		notes.add("start " + name)
		return rehearsed(name)
	}
}

type rehearsed string

func (r rehearsed) Scale(o autoscale.Order) { notes.add(fmt.Sprintf("%d %s", o.Workers, string(r))) }

func (r rehearsed) Release() { notes.add("release " + string(r)) }

func (r rehearsed) Close() { notes.add("close " + string(r)) }

// notes are what became of rehearsed crews.
var notes notebook

type notebook struct {
	mu    sync.Mutex
	lines []string
}

func (n *notebook) add(line string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, line)
}

// want compares what was noted since the last time, in any order.
func (n *notebook) want(t *testing.T, lines ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.Sort(lines)
	slices.Sort(n.lines)
	if !slices.Equal(n.lines, lines) {
		t.Errorf("noted %q, want %q", n.lines, lines)
	}
	n.lines = nil
}

// running is an app as Start leaves it, with workers.
func (s *gateway) running(scale ...*Scale) *App {
	s.t.Helper()
	p := s.app.plan
	p.broker.Addresses = []string{"kafka:9092"} // what workers are told
	a := &App{plan: p, Scale: scale, logger: zap.NewNop(), started: s.app.started, cancel: func() {}}
	var err error
	if a.inside, err = a.plan.acquire(); err != nil {
		s.t.Fatal(err)
	}
	if err := a.startCrews(); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// Workers start with a configuration, stay over a reload that does not concern
// them, and end with the last configuration that wants them.
func TestCrews(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		crew := func(name, topic string, n int) *Scale {
			return &Scale{Topic: topic, Group: "cooks", Min: n, Max: n, Drain: caddy.Duration(time.Second), scaler: rehearsal(name)}
		}
		const a, b = "a for orders as cooks within 1s by kafka:9092", "b for mails as cooks within 1s by kafka:9092"
		first := s.running(crew("a", "orders", 3), crew("b", "mails", 1))
		notes.want(t, "start "+a, "3 "+a, "start "+b, "1 "+b)
		second := s.running(crew("a", "orders", 2))
		notes.want(t, "2 "+a)
		for _, end := range []func() error{first.Stop, first.Cleanup} { // as Caddy does it
			if err := end(); err != nil {
				t.Error(err)
			}
		}
		notes.want(t, "close "+b)
		if err := second.Cleanup(); err != nil {
			t.Error(err)
		}
		notes.want(t, "close "+a)
	})
}

// The same command for the same job is the same crew, and any other is not.
func TestProcessCrewKey(t *testing.T) {
	job := autoscale.Job{Kafka: "k:1", Topic: "t", Group: "g", Drain: time.Second}
	key := func(job autoscale.Job, command ...string) string {
		k, _ := (&ProcessScaler{Command: command}).Crew(job)
		return k
	}
	seen := map[string]bool{key(job, "worker", "-x"): true}
	if !seen[key(job, "worker", "-x")] {
		t.Error("equal crews differ")
	}
	other := job
	other.Group = "h"
	later := job
	later.Drain = time.Minute
	for _, k := range []string{key(job, "worker -x"), key(job, "worker", "-y"), key(other, "worker", "-x"), key(later, "worker", "-x")} {
		if seen[k] {
			t.Errorf("%s is another crew's key", k)
		}
		seen[k] = true
	}
}
