package autoscale

import (
	"math"
	"testing"
	"time"
)

func TestRoomForWaits(t *testing.T) {
	c := Config{}.withDefaults()
	for _, step := range []struct {
		name   string
		load   load
		shares map[int]float64 // by the number of workers
		want   int             // from the load rounded up
	}{
		{"short work needs none", load{forInflow: 9.5, shared: 1000, residual: 0.001}, map[int]float64{10: 0}, 10},
		{"work of half a second", load{forInflow: 12, shared: 96, residual: 0.5}, map[int]float64{12: 1, 16: 0.75 * math.Exp(-5), 32: 0.375 * math.Exp(-12.5)}, 16},
		{"who has one more counts for its share", load{forInflow: 5, shared: 10, residual: 1}, map[int]float64{8: 0.4*1 + 0.6*0.5*math.Exp(-5)}, 10},
		{"no more than three times the work", load{forInflow: 10, shared: 960, residual: 5}, map[int]float64{29: 0.34 * math.Exp(-0.65*2)}, 29},
		{"nor than partitions", load{forInflow: 10, shared: 12, residual: 5}, nil, 12},
		{"all of that beside one that catches up", load{forInflow: 10, shared: 96, residual: 0.1, catchingUp: 1}, nil, 29},
		{"nothing for nothing", load{shared: 96, residual: 5}, nil, 0},
	} {
		for n, want := range step.shares {
			if got := c.lateShare(step.load, n); math.Abs(got-want) > 0.01 {
				t.Errorf("%s: %.4f are late with %d workers, not %.4f", step.name, got, n, want)
			}
		}
		if got := c.forWaits(step.load, int(math.Ceil(step.load.forInflow)), late); got != step.want {
			t.Errorf("%s: %d workers, not %d", step.name, got, step.want)
		}
	}
}

func TestWhatCatchesUpGetsRoomBesideIt(t *testing.T) {
	s := newScene(t, Config{Max: 30}, 24, 0)
	s.look.WorkTime = 500 * time.Millisecond
	s.run(5*time.Minute, 0.25, 0.25)
	before := s.last.Workers
	s.look.Partitions[7].Backlog += 400
	s.run(20*time.Second, 0.25, 0.25)
	if s.last.Workers < 2*before {
		s.says(2 * before)
	}
	s.says(s.last.Workers, "beside one that catches up")
	s.look.Partitions[7].Backlog = 0
	s.run(10*time.Minute, 0.25, 0.25)
	if s.last.Workers > before+1 {
		s.says(before)
	}
}
