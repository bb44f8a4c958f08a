package sim

import (
	"math"
	"reflect"
	"testing"
)

// script is a policy that says what it is told.
type script func(now float64, w *World) int

func (script) Name() string { return "script" }

func (s script) Workers(now float64, w *World) int { return s(now, w) }

// always gives a trace with one rate.
func always(rate, length float64) Trace {
	return Trace{Name: "test", Length: length, Rate: func(float64) float64 { return rate }, Service: exponential}
}

func play(tr Trace, policy Policy) Result {
	p := Defaults()
	return run(p, tr, tr.draw(1, p.Partitions), 1, policy)
}

func TestTheSameSeedGivesTheSameRun(t *testing.T) {
	tr := Traces()[5]
	if a, b := play(tr, Ours(Defaults())), play(tr, Ours(Defaults())); !reflect.DeepEqual(a, b) {
		t.Fatalf("%+v and %+v", a, b)
	}
}

func TestServiceTimesHaveTheMeanTheyShould(t *testing.T) {
	for name, tr := range map[string]Trace{"exponential": Traces()[0], "lognormal": Traces()[5]} {
		sum, n := 0.0, 0
		for seed := range uint64(5) {
			for _, log := range tr.draw(seed, 96) {
				for i, r := range log {
					if i > 0 && r.at < log[i-1].at {
						t.Fatal("a log is out of order")
					}
					sum, n = sum+r.service, n+1
				}
			}
		}
		if mean := sum / float64(n); math.Abs(mean-MeanService) > 0.02*MeanService {
			t.Errorf("%s: %d records of %.3f s on average", name, n, mean)
		}
	}
}

func TestNobodyWorksWithoutWorkers(t *testing.T) {
	r := play(always(5, 600), fixed(0))
	if r.InTime != 0 || r.WorkerSeconds != 0 || r.Work != 0 {
		t.Fatalf("got %+v", r)
	}
}

func TestWorkIsConserved(t *testing.T) {
	tr := always(5, 1200)
	p := Defaults()
	logs := tr.draw(3, p.Partitions)
	want := 0.0
	for _, log := range logs {
		for _, r := range log {
			want += r.service
		}
	}
	// The number changes all the time, so that records are in work at each rebalance.
	r := run(p, tr, logs, 3, script(func(now float64, _ *World) int { return 6 + int(now/20)%7 }))
	if math.Abs(r.Work-want) > 0.02*want {
		t.Fatalf("worked %.0f s on %.0f s of records", r.Work, want)
	}
	if r.WorkerSeconds < r.Work {
		t.Fatalf("%.0f worker-seconds did %.0f s of work", r.WorkerSeconds, r.Work)
	}
}

func TestWorkersTakeTimeToStartAndToStop(t *testing.T) {
	p := Defaults()
	var ready []int
	r := play(always(0.0001, 60), script(func(now float64, w *World) int {
		ready = append(ready, w.Ready())
		if now < 30 {
			return 4
		}
		return 0
	}))
	if early := ready[int(p.StartFrom/p.Tick)-1]; early != 0 {
		t.Errorf("%d are ready before any can be", early)
	}
	if late := ready[int(p.StartTo/p.Tick)+1]; late != 4 {
		t.Errorf("%d are ready after all should be", late)
	}
	if want := 4 * (30 + p.StopTime); math.Abs(r.WorkerSeconds-want) > 4 {
		t.Errorf("paid %.0f worker-seconds, not %.0f", r.WorkerSeconds, want)
	}
}

func TestARebalanceStopsEverybody(t *testing.T) {
	calm := play(always(20, 1200), script(func(float64, *World) int { return 16 }))
	storm := play(always(20, 1200), script(func(now float64, _ *World) int { return 16 + int(now/10)%2 }))
	if storm.InTime >= calm.InTime {
		t.Fatalf("%.3f in time with a rebalance each 10 s, %.3f without", storm.InTime, calm.InTime)
	}
}

func TestAnOutageStopsEverything(t *testing.T) {
	tr := Traces()[7]
	for _, log := range tr.draw(1, 96) {
		for _, r := range log {
			if tr.out(r.at) {
				t.Fatal("a record came while the broker was away")
			}
		}
	}
	p := Defaults()
	begun := -1
	play(tr, script(func(now float64, w *World) int {
		sum := 0
		for _, part := range w.parts {
			sum += part.begun
		}
		if now > tr.OutageFrom+p.Tick && tr.out(now) {
			if begun >= 0 && sum != begun {
				t.Fatalf("%d records were begun at %.0f s", sum-begun, now)
			}
			begun = sum
		}
		return 14
	}))
}
