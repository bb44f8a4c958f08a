package autoscale

import (
	"testing"
	"time"
)

func TestASuddenRiseIsLookedAtAgain(t *testing.T) {
	s := newScene(t, Config{Max: 500, Keyed: true}, 24, 0)
	s.look.Keys = Unknown
	s.run(5*time.Minute, 4, 4)
	if s.last.LookAgain != 0 {
		t.Fatalf("looks again in %s at a constant load", s.last.LookAgain)
	}
	// It came in the last second of the two.
	s.now += time.Second
	if d := s.decide(time.Second, 20, 4); d.LookAgain != quick {
		t.Fatalf("looks again in %s: %s", d.LookAgain, d.Reason)
	}
	first := s.last.Workers
	if d := s.decide(quick, 20, 4); d.Workers <= first {
		t.Fatalf("still %d, although more comes than it looked like: %s", d.Workers, d.Reason)
	}
	s.run(time.Minute, 20, 20)
	if s.last.LookAgain != 0 {
		t.Fatalf("looks again in %s when it is not sudden any more", s.last.LookAgain)
	}
}

func TestTheFirstRecordIsLookedAtAgain(t *testing.T) {
	s := newScene(t, Config{Max: 60}, 48, 0)
	s.look.WorkTime = 125 * time.Millisecond
	s.run(time.Minute, 0, 0)
	s.look.Partitions[2] = Partition{Backlog: 1, Produced: 1}
	if d := s.decide(1900*time.Millisecond, 0, 0); d.Workers != 1 || d.LookAgain != quick {
		t.Fatalf("looks again in %s: %s", d.LookAgain, d.Reason)
	}
	// The rate is told from when it was woken: 96 a second, 12 workers, and what
	// comes until they work.
	d := s.decide(quick, 1, 0)
	if d.Inflow < 90 || d.Workers < 24 {
		t.Fatalf("%.1f/s: %s", d.Inflow, d.Reason)
	}
	s.says(d.Workers, "more for what comes until they work")
}

func TestAGuessIsForgotten(t *testing.T) {
	s := newScene(t, Config{Max: 40}, 24, 0)
	s.look.WorkTime = 0
	s.run(time.Minute, 0, 0)
	s.decide(2*time.Second, 1, 0)
	s.look.Workers = 0
	s.decide(quick, 2, 0)
	if s.last.Workers < 20 || s.last.WorkTime != 0 {
		t.Fatalf("%s known: %s", s.last.WorkTime, s.last.Reason)
	}
	s.says(s.last.Workers, "at a guessed 1s each")
	held := s.last.Workers
	s.run(time.Minute, 1, 0)
	s.says(held, "held until it is known how long a record takes, guessed at 1s")
	s.look.WorkTime = 50 * time.Millisecond
	for i := range s.look.Partitions {
		s.look.Partitions[i].Backlog = 0
	}
	s.run(5*time.Minute, 1, 1)
	s.says(2)
}

func TestWhatGrowsIsSeenAhead(t *testing.T) {
	s := newScene(t, Config{Max: 40}, 24, 0)
	s.look.WorkTime = 500 * time.Millisecond
	s.run(5*time.Minute, 0.5, 0.5)
	rose := 0
	for second := range 600 {
		rate := 0.5 + float64(second)/600
		for i := range s.look.Partitions {
			s.look.Partitions[i].Produced += int64(rate*float64(second+i+1)) - int64(rate*float64(second+i))
		}
		if second%2 == 1 {
			if d := s.decide(2*time.Second, 0, 0); d.ForInflow > d.Inflow*0.5*1.02 {
				rose++
			}
		}
	}
	if rose < 60 {
		t.Fatalf("seen to rise at %d of 300 looks", rose)
	}
}

func TestASmallStepDownWaitsForLonger(t *testing.T) {
	c := Config{}.withDefaults()
	for _, step := range []struct {
		from, to int
		want     time.Duration
	}{{10, 8, 30 * time.Second}, {10, 9, time.Minute}, {100, 99, 2 * time.Minute}, {10, 5, 15 * time.Second}, {10, 0, 15 * time.Second}} {
		if got := c.waits(step.from, step.to, false).Round(time.Millisecond); got != step.want {
			t.Errorf("from %d to %d after %s, not %s", step.from, step.to, got, step.want)
		}
	}
}

func TestWorkersThatAreComingCount(t *testing.T) {
	c := Config{Lead: 10 * time.Second}.withDefaults()
	at := func(ago time.Duration, from, to int) Decision {
		return Decision{At: start.Add(-ago), From: from, Workers: to}
	}
	for _, step := range []struct {
		decisions []Decision
		n         int
		want      float64
	}{
		{nil, 4, 4},
		{[]Decision{at(time.Minute, 0, 4)}, 4, 4},
		{[]Decision{at(5*time.Second, 0, 4)}, 4, 2},
		{[]Decision{at(time.Minute, 0, 2), at(5*time.Second, 2, 4), at(0, 4, 20)}, 20, 3},
	} {
		if got := c.working(History{Decisions: step.decisions}, start, step.n); got != step.want {
			t.Errorf("%v: %.2f work on average, not %.2f", step.decisions, got, step.want)
		}
	}
}
