package autoscale

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// unknownWork is a topic like that of the example of a burst, where nobody knows yet how
// long a record takes, and some records a second come into each of eight partitions.
func unknownWork(t *testing.T, perSecond float64) *scene {
	t.Helper()
	s := newScene(t, Config{Max: 8, Drain: 5 * time.Second, Idle: 10 * time.Second, DownAfter: 10 * time.Second}, 8, 0)
	s.look.WorkTime = 0
	s.run(time.Minute, 0, 0)
	s.look.Partitions[0] = Partition{Backlog: 1, Produced: 1}
	s.decide(time.Millisecond, 0, 0)
	s.says(1, "at a guessed 500ms each")
	s.decide(quick, perSecond/8, 0)
	s.decide(quick, perSecond/8, 0)
	return s
}

// done has all that waits be done.
func (s *scene) done() {
	for i := range s.look.Partitions {
		p := &s.look.Partitions[i]
		p.Done, p.Backlog = p.Done+p.Backlog, 0
	}
}

func TestALightLoadGivesUpItsGuess(t *testing.T) {
	for name, wait := range map[string]int64{"all is done at each look": 0, "commits are rare": 1} {
		t.Run(name, func(t *testing.T) {
			s := unknownWork(t, 7)
			s.run(4*time.Second, 7.0/8, 0)
			if s.last.Workers < 3 {
				s.says(3)
			}
			s.done()
			before, told := s.last.Workers, []string{}
			for range 60 {
				for i := range s.look.Partitions {
					s.look.Partitions[i].Backlog = wait
				}
				d := s.decide(2*time.Second, 7.0/8, 7.0/8)
				if d.Workers > d.From || d.Workers < d.From/2 {
					t.Fatalf("from %d: %s", d.From, d.Reason)
				}
				if d.Workers < d.From {
					told = append(told, d.Reason)
					s.says(d.Workers, "little waits, and it is not known how long a record takes: fewer are tried")
				}
			}
			s.says(1, "held until it is known how long a record takes, guessed at 500ms")
			if len(told) < 2 || before > 8 {
				t.Fatalf("from %d by %q", before, told)
			}
		})
	}
}

func TestAGuessIsKeptWhileMuchWaits(t *testing.T) {
	s := unknownWork(t, 24)
	s.run(4*time.Second, 3, 0)
	held := s.last.Workers
	s.run(2*time.Minute, 3, 3) // they keep up, and what has come first still waits
	s.says(held, "held until it is known how long a record takes")
}

func TestAGuessAsksForLittle(t *testing.T) {
	s := unknownWork(t, 3)
	s.run(4*time.Second, 3.0/8, 0)
	if s.last.Workers > 5 {
		s.says(5)
	}
	// Two that have just come are no rate to hold three workers for.
	c := Config{}.withDefaults()
	if n := c.workers(load{guessed: true, forInflow: 40, backlog: 2}, 0, late); n != 3 {
		t.Fatalf("%d workers for 2 records", n)
	}
}

func TestAGuessThatIsSpentRaisesForABacklogOnly(t *testing.T) {
	begin := func() *scene {
		s := newScene(t, Config{Min: 1, Max: 30, Keyed: true}, 1, 1)
		s.look.WorkTime = 0
		s.run(2*time.Minute, 1, 1)
		s.says(1)
		return s
	}
	s := begin()
	s.run(10*time.Minute, 40, 40)
	s.says(1, "held until it is known how long a record takes")
	s = begin()
	s.run(10*time.Minute, 10, 8) // a little less may be what commits lag behind by
	s.says(1, "held")
	s = begin()
	s.run(10*time.Minute, 1, 0) // more do not help where nothing is done; until that shows, one may come
	if s.last.Workers > 2 {
		s.says(2)
	}
	s = begin()
	raised := 0
	for range 60 {
		if d := s.decide(2*time.Second, 10, 2); d.Workers > d.From {
			raised++
			s.says(d.Workers, "wait, and more come than are done, at a guessed 1s each")
		}
	}
	if s.last.Workers < 20 || raised > 8 {
		t.Fatalf("%d workers after %d raises: %s", s.last.Workers, raised, s.last.Reason)
	}
}

func TestToZeroInOneStep(t *testing.T) {
	for _, tt := range []struct {
		name            string
		idle, downAfter time.Duration
		numbers         []int
		says            []string
	}{
		{"a short idle", 10 * time.Second, 10 * time.Second, []int{0}, []string{"nothing to do; they stay until idle for 10s"}},
		{"a long idle", 2 * time.Minute, 30 * time.Second, []int{1, 0}, []string{
			"nothing to do; 0 would do, but 8 were needed within the last 15s", "nothing to do; the last one stays until idle for 2m",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, Config{Max: 8, Drain: 5 * time.Second, Idle: tt.idle, DownAfter: tt.downAfter}, 8, 0)
			s.run(time.Minute, 9, 9)
			s.says(8)
			s.run(4*time.Second, 4, 4) // it ebbs away
			s.run(4*time.Second, 2, 2)
			var numbers []int
			said := make(map[string]bool)
			since := s.now
			for s.last.Workers > 0 && s.now < since+5*time.Minute {
				d := s.decide(2*time.Second, 0, 0)
				if d.Workers != d.From {
					numbers = append(numbers, d.Workers)
				}
				_, rest, _ := strings.Cut(d.Reason, ": ")
				said[rest] = true
			}
			if !slices.Equal(numbers, tt.numbers) || s.now-since > tt.idle+2*time.Second {
				t.Fatalf("%v within %s: %v", numbers, s.now-since, said)
			}
			for _, reason := range tt.says {
				if !said[reason] {
					t.Errorf("%q is not among %v", reason, said)
				}
			}
		})
	}
}
