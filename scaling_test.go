package osmosis

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// rehearsal is a scaler whose workers only note what becomes of them.
type rehearsal string

func (r rehearsal) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	name := fmt.Sprintf("%s for %s as %s by %s", string(r), job.Topic, job.Group, job.Kafka)
	return name, func() autoscale.Crew {
		notes.add("start " + name)
		return &rehearsed{name: name, told: -1}
	}
}

type rehearsed struct {
	name string

	mu   sync.Mutex
	told int
}

func (r *rehearsed) Scale(o autoscale.Order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told != o.Workers {
		notes.add(fmt.Sprintf("%d %s", o.Workers, r.name))
	}
	r.told = o.Workers
}

func (r *rehearsed) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.told, 0)
}

func (r *rehearsed) Release() {}

// leaving is how long workers take to leave.
const leaving = 10 * time.Second

func (r *rehearsed) Close() {
	time.Sleep(leaving)
	notes.add("close " + r.name)
}

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
	a := &App{plan: p, Scale: scale, logger: zap.NewNop(), started: s.app.started, settings: s.app.settings, cancel: func() {}}
	i, err := a.plan.acquire()
	if err != nil {
		s.t.Fatal(err)
	}
	a.inside, a.shared = i, newShare(i, a.plan.insideKey)
	if err := a.startScaling(); err != nil {
		s.t.Fatal(err)
	}
	return a
}

// A moment is long enough for a gateway to get the lease, and for a few looks.
const moment = time.Minute

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Workers start with a configuration, stay over a reload that does not concern
// them, and end with the last configuration that wants them.
func TestScalingOverReloads(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		crew := func(name, topic string, n int) *Scale {
			return &Scale{Topic: topic, Group: "cooks", Min: n, Max: n, scaler: rehearsal(name)}
		}
		const a, b, c = "a for orders as cooks by kafka:9092", "b for mails as cooks by kafka:9092", "c for orders as cooks by kafka:9092"
		end := func(app *App) {
			t.Helper()
			for _, end := range []func() error{app.Stop, app.Cleanup} { // as Caddy does it
				if err := end(); err != nil {
					t.Error(err)
				}
			}
		}
		first := s.running(crew("a", "orders", 3), crew("b", "mails", 1))
		after(moment)
		notes.want(t, "start "+a, "3 "+a, "start "+b, "1 "+b)
		second := s.running(crew("a", "orders", 2))
		after(moment)
		notes.want(t, "2 "+a)
		end(first)
		notes.want(t, "close "+b)

		// One that fails half-way leaves what was before.
		failed := s.running(crew("a", "orders", 5))
		after(moment)
		end(failed)
		after(moment)
		notes.want(t, "5 "+a, "2 "+a)

		// Another command is another crew; its loop goes on with the lease.
		third := s.running(crew("c", "orders", 4))
		after(moment)
		end(second)
		after(moment)
		notes.want(t, "start "+c, "4 "+c, "close "+a)
		if list := scalings(); len(list) != 1 || !list[0].report().Deciding {
			t.Errorf("%d are scaled, want one, decided here", len(list))
		}
		end(third)
		notes.want(t, "close "+c)
	})
}

// Workers of all topics leave side by side: a stop, or a reload, takes no longer
// than the slowest of them.
func TestWorkersStopTogether(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		var scale []*Scale
		for _, topic := range []string{"orders", "mails", "bills", "calls"} {
			scale = append(scale, &Scale{Topic: topic, Group: "cooks", Min: 1, Max: 1, scaler: rehearsal("a")})
		}
		app := s.running(scale...)
		after(moment)
		began := time.Now()
		if err := app.Stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took >= 2*leaving {
			t.Errorf("they took %s to stop", took)
		}
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
		notes.lines = nil
	})
}

// A gateway that does not decide tells of nothing but itself: what it sees too
// would be there twice.
func TestWhoDoesNotDecideTellsLittle(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		scale := &Scale{Topic: testTopic, Group: testTopic, scaler: rehearsal("a")}
		other, err := s.app.newLease(scale)
		if err != nil {
			t.Fatal(err)
		}
		after(moment)
		app := s.running(scale)
		after(moment)
		told := 0
		for name := range scrape(t) {
			if strings.HasPrefix(name, "osmosis_scale_") {
				told++
			}
		}
		if told != 2 {
			t.Errorf("tells of %d figures, want those of running and deciding", told)
		}
		for _, end := range []func() error{app.Cleanup, other.Destruct} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
		notes.lines = nil
	})
}

// With dry_run decisions are made and told, and nothing is done.
func TestDryRun(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		app := s.running(&Scale{Topic: testTopic, Group: testTopic, Min: 3, Max: 3, DryRun: true, scaler: rehearsal("a")})
		after(moment)
		notes.want(t, "start a for orders as orders by kafka:9092")
		told := scrape(t)
		for name, want := range map[string]float64{
			"osmosis_scale_workers_desired group=orders topic=orders": 3,
			"osmosis_scale_workers_running group=orders topic=orders": 0,
			"osmosis_scale_deciding group=orders topic=orders":        1,
			"osmosis_scale_backlog_records group=orders topic=orders": 0,
		} {
			if got, ok := told[name]; !ok || got != want {
				t.Errorf("%s is %v (%t), want %v", name, got, ok, want)
			}
		}
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
		notes.want(t, "close a for orders as orders by kafka:9092")
		for name := range scrape(t) {
			if _, found := told[name]; found && name[:len("osmosis_scale")] == "osmosis_scale" {
				t.Errorf("%s is left behind", name)
			}
		}
	})
}
