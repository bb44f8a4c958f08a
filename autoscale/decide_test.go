package autoscale

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// start is when virtual time begins.
var start = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// scene is a topic whose numbers a test moves by hand.
type scene struct {
	t       *testing.T
	config  Config
	history History
	now     time.Duration
	look    Measurement
	last    Decision
}

// newScene has partitions without a record, and workers that need 100 ms for one.
func newScene(t *testing.T, c Config, partitions, workers int) *scene {
	t.Helper()
	return &scene{t: t, config: c, look: Measurement{
		Workers: workers, WorkTime: 100 * time.Millisecond, Keys: Unknown, Partitions: make([]Partition, partitions),
	}}
}

// decide looks once, after a time in which so many records came into and left each partition.
func (s *scene) decide(after time.Duration, in, out float64) Decision {
	s.t.Helper()
	s.now += after
	s.look.At = start.Add(s.now)
	for i := range s.look.Partitions {
		if p := &s.look.Partitions[i]; p.Backlog >= 0 {
			came := int64(in*s.now.Seconds()) - int64(in*(s.now-after).Seconds())
			left := int64(out*s.now.Seconds()) - int64(out*(s.now-after).Seconds())
			p.Produced += came
			p.Done += left
			p.Backlog = max(0, p.Backlog+came-left)
		}
	}
	look := s.look
	look.Partitions = slices.Clone(look.Partitions)
	s.history.Look(look)
	s.last = Decide(s.config, s.history)
	s.history.Decided(s.config, s.last)
	if err := s.config.Validate(); err != nil {
		s.t.Fatal(err)
	}
	if c := s.config.withDefaults(); s.last.Workers < c.Min || s.last.Workers > c.Max {
		s.t.Fatalf("%d is outside of %d to %d: %s", s.last.Workers, c.Min, c.Max, s.last.Reason)
	}
	s.look.Workers = s.last.Workers
	return s.last
}

// run looks every two seconds for a time.
func (s *scene) run(span time.Duration, in, out float64) Decision {
	s.t.Helper()
	for range int(span / (2 * time.Second)) {
		s.decide(2*time.Second, in, out)
	}
	return s.last
}

// says checks a decision and what is in its reason.
func (s *scene) says(workers int, parts ...string) {
	s.t.Helper()
	if s.last.Workers != workers {
		s.t.Fatalf("wants %d, not %d: %s", s.last.Workers, workers, s.last.Reason)
	}
	for _, part := range parts {
		if !strings.Contains(s.last.Reason, part) {
			s.t.Fatalf("%q does not say %q", s.last.Reason, part)
		}
	}
}

func TestTheFormula(t *testing.T) {
	// 300/s of 17 ms each, and 1,200 to drain in 10 s.
	s := newScene(t, Config{Keyed: true, Max: 20}, 1, 0)
	s.look.WorkTime = 17 * time.Millisecond
	s.decide(0, 0, 0)
	s.look.Partitions[0].Backlog = 1200 - 20*300
	for range 10 {
		s.look.Partitions[0].Backlog = max(0, s.look.Partitions[0].Backlog)
		s.decide(2*time.Second, 300, 300)
	}
	s.look.Partitions[0].Backlog, s.look.Workers = 1200, 0
	d := s.decide(2*time.Second, 300, 300)
	if d.Wanted != 8 || d.Inflow != 300 || d.Backlog != 1200 {
		t.Fatalf("got %+v", d)
	}
	s.says(d.Workers, "5.1 for inflow of 300/s", "2.0 to drain 1,200 in 10s", "at 17ms each")
}

func TestFromZeroAtTheFirstRecord(t *testing.T) {
	s := newScene(t, Config{}, 4, 0)
	s.run(time.Minute, 0, 0)
	s.says(0, "nothing to do")
	s.look.Partitions[2] = Partition{Backlog: 1, Produced: 1}
	s.decide(time.Millisecond, 0, 0)
	s.says(1)
	s.look.WorkTime = 0 // nobody has worked yet
	s = newScene(t, Config{}, 4, 0)
	s.look.WorkTime = 0
	s.decide(0, 0, 0)
	s.look.Partitions[2] = Partition{Backlog: 1, Produced: 1}
	s.decide(time.Millisecond, 0, 0)
	s.says(1, "at a guessed 1s each")
}

func TestToZeroAfterIdle(t *testing.T) {
	s := newScene(t, Config{Idle: time.Minute}, 12, 0)
	s.run(2*time.Minute, 2, 2)
	if s.last.Workers < 3 {
		s.says(3)
	}
	s.run(58*time.Second, 0, 0)
	s.says(1, "the last one stays until idle for 1m")
	s.run(34*time.Second, 0, 0)
	s.says(0)
	s.run(time.Hour, 0, 0)
	s.says(0)

	s = newScene(t, Config{Idle: time.Minute}, 12, 0)
	s.run(time.Minute, 0, 0)
	s.look.Partitions[0].Produced++ // a single record, and then nothing for long
	s.decide(2*time.Second, 0, 0)
	s.run(58*time.Second, 0, 0)
	s.says(1)
	s.run(34*time.Second, 0, 0)
	s.says(0)
}

func TestUnknownIsNeverZero(t *testing.T) {
	s := newScene(t, Config{Hold: 10 * time.Minute, Max: 30}, 12, 0)
	s.run(5*time.Minute, 8, 8)
	held := s.last.Workers
	known := slices.Clone(s.look.Partitions)
	for i := range s.look.Partitions {
		s.look.Partitions[i] = Partition{Backlog: Unknown, Produced: Unknown, Done: Unknown}
	}
	s.run(9*time.Minute+50*time.Second, 0, 0)
	s.says(held, "held, the broker does not tell")
	s.run(time.Minute, 0, 0)
	s.says(1, "the floor")
	s.look.Partitions = known
	s.run(20*time.Second, 8, 8)
	if s.last.Workers < 10 {
		s.says(10)
	}

	// One partition without a leader takes nothing away either.
	held = s.last.Workers
	s.look.Partitions[3] = Partition{Backlog: Unknown, Produced: Unknown, Done: Unknown}
	s.run(9*time.Minute, 0.1, 0.1)
	s.says(held, "held")

	// Where nobody works it brings one worker, if it lasts.
	s = newScene(t, Config{Hold: 10 * time.Minute}, 4, 0)
	s.run(time.Minute, 0, 0)
	s.look.Partitions[3] = Partition{Backlog: Unknown, Produced: Unknown, Done: Unknown}
	s.run(9*time.Minute+50*time.Second, 0, 0)
	s.says(0, "held")
	for s.last.Workers == 0 && s.now < time.Hour {
		s.decide(2*time.Second, 0, 0)
	}
	s.says(1, "the floor, the broker has not told what waits for 10m")
	s.run(time.Minute, 0, 0)
	s.says(1)

	// Who has never known anything does not stop what is running.
	s = newScene(t, Config{}, 2, 7)
	s.look.Partitions[0].Backlog, s.look.Partitions[1].Backlog = Unknown, Unknown
	s.run(time.Minute, 0, 0)
	s.says(7)
	// And lets one begin where nothing is.
	s = newScene(t, Config{}, 0, 0)
	s.run(time.Minute, 0, 0)
	s.says(1)
}

func TestPoisonDoesNotScale(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 0)
	s.run(5*time.Minute, 2, 2)
	before := s.last.Workers
	s.look.Partitions[7].Lost = 3
	for range 600 {
		s.look.Partitions[7].Stalled += 2 * time.Second
		s.look.Partitions[7].Backlog += 100
		s.decide(2*time.Second, 2, 2)
	}
	if s.last.Workers > before {
		s.says(before)
	}
	s.says(s.last.Workers, "left out as poisoned: partition 7")
	if !slices.Equal(s.last.Poisoned, []int32{7}) {
		t.Fatalf("got %v", s.last.Poisoned)
	}

	// It is not taken for idle, though: somebody goes on trying.
	s.run(10*time.Minute, 0, 0)
	s.says(1, "poisoned")
}

// A worker that works on the first record of all for as long as it takes is not
// told from one that hangs by the time that has passed: neither poisoned nor slow, it
// counts as it did at the beginning. A member that is gone, as after a deploy, says
// nothing either.
func TestALongFirstRecordIsNotPoison(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 2)
	s.look.WorkTime = 0
	for i := range s.look.Partitions[:2] {
		s.look.Partitions[i] = Partition{Backlog: 3, Lost: 2}
	}
	s.decide(2*time.Second, 0, 0)
	for range 300 {
		for i := range s.look.Partitions[:2] {
			s.look.Partitions[i].Stalled += 2 * time.Second
		}
		s.decide(2*time.Second, 0, 0)
		if len(s.last.Poisoned) > 0 || len(s.last.Slow) > 0 || s.last.Backlog != 6 || s.last.Workers < 1 {
			t.Fatalf("after %s: %+v", s.look.Partitions[0].Stalled, s.last)
		}
	}

	// Three that are gone do.
	s.look.Partitions[0].Lost = 3
	s.decide(2*time.Second, 0, 0)
	s.says(s.last.Workers, "left out as poisoned: partition 0")
	if len(s.last.Poisoned) != 1 || s.last.Backlog != 3 {
		t.Fatalf("%+v", s.last)
	}
}

// Where it is known how long records take, one for which a worker needs far longer is
// slow, and never poisoned while that worker has it.
func TestALongRecordIsSlow(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 0)
	s.run(5*time.Minute, 2, 2)
	before := s.last.Workers
	s.look.Partitions[7].Backlog = 1
	for range 300 {
		s.look.Partitions[7].Stalled += 2 * time.Second
		s.decide(2*time.Second, 2, 2)
		slow := s.look.Partitions[7].Stalled >= time.Minute
		if len(s.last.Poisoned) > 0 || slow != (len(s.last.Slow) == 1) {
			t.Fatalf("after %s: poisoned %v, slow %v", s.look.Partitions[7].Stalled, s.last.Poisoned, s.last.Slow)
		}
	}
	s.says(s.last.Workers, "left out as slow, with nothing done for more than 1m: partition 7")
	if s.last.Workers > before {
		s.says(before)
	}
}

func TestSlowWorkIsNotPoison(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 4)
	s.look.WorkTime = 5 * time.Minute
	for i := range s.look.Partitions {
		s.look.Partitions[i] = Partition{Backlog: 3, Stalled: 4 * time.Minute}
	}
	s.run(time.Minute, 0, 0)
	s.says(12)
	if len(s.last.Poisoned) > 0 || len(s.last.Slow) > 0 {
		t.Fatalf("%v are poisoned and %v slow, which is how long records take", s.last.Poisoned, s.last.Slow)
	}
}

func TestNothingMoves(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 4)
	for i := range s.look.Partitions {
		s.look.Partitions[i] = Partition{Backlog: 1000, Stalled: time.Hour}
	}
	s.run(10*time.Minute, 5, 0)
	s.says(4, "nothing of what waits moves")
}

func TestPausedIsLeftOut(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 0)
	for i := range s.look.Partitions {
		s.look.Partitions[i].Paused = true
	}
	s.run(5*time.Minute, 50, 0)
	s.says(0, "left out as paused: 12")
}

func TestWhatOthersWorkOnCountsForNothing(t *testing.T) {
	s := newScene(t, Config{Max: 12, Keyed: true}, 12, 0)
	for i := range s.look.Partitions {
		s.look.Partitions[i].Elsewhere = i > 0
	}
	s.look.Partitions[11].Backlog = Unknown
	s.run(time.Minute, 50, 50)
	s.says(5, "5.0 for inflow of 50/s")
	if strings.Contains(s.last.Reason, "paused") || strings.Contains(s.last.Reason, "tell") {
		t.Fatal(s.last.Reason)
	}
	s.look.Partitions[0].Elsewhere = true
	s.run(5*time.Minute, 50, 50)
	s.says(0, "nothing to do")
}

func TestAHotPartitionIsReportedNotScaledFor(t *testing.T) {
	s := newScene(t, Config{Max: 12}, 12, 0)
	for range 150 {
		s.look.Partitions[5].Produced += 100
		s.look.Partitions[5].Backlog += 80
		s.decide(2*time.Second, 0.5, 0.5)
	}
	if s.last.Workers > 3 {
		s.says(3)
	}
	s.says(s.last.Workers, "into partition 5: more workers do not help")
	if !slices.Equal(s.last.Hot, []int32{5}) {
		t.Fatalf("got %v", s.last.Hot)
	}
}

func TestNoMoreThanCanWorkAtOnce(t *testing.T) {
	s := newScene(t, Config{Max: 100}, 4, 0)
	s.run(time.Minute, 50, 5)
	s.says(4, "20.0 for inflow of 200/s", "a partition has one worker at most")
	s = newScene(t, Config{Max: 100, Keyed: true}, 4, 0)
	s.look.Keys = 9
	s.run(time.Minute, 50, 5)
	s.says(9, "no more than the 9 keys in flight can use")
	s = newScene(t, Config{Max: 3}, 4, 0)
	s.run(time.Minute, 50, 5)
	s.says(3, "at most 3")
	s = newScene(t, Config{Min: 2}, 4, 0)
	s.run(time.Minute, 0, 0)
	s.says(2, "at least 2")
}

func TestTheBudgetOfRebalances(t *testing.T) {
	c := Config{Max: 100, Keyed: true, Rebalances: 8, DownAfter: 4 * time.Second, UpEvery: time.Second}
	s := newScene(t, c, 1, 0)
	random := rand.New(rand.NewPCG(1, 2))
	var changes []time.Duration
	for range 3600 {
		d := s.decide(2*time.Second, 0, 0)
		s.look.Partitions[0].Backlog = 50 + random.Int64N(5000)
		if d.Workers != d.From && d.From > 0 && d.Workers > 0 {
			changes = append(changes, s.now)
		}
	}
	for i := range len(changes) - 8 {
		if changes[i+8]-changes[i] < time.Hour {
			t.Fatalf("9 changes within %s", changes[i+8]-changes[i])
		}
	}
	if len(changes) < 8 {
		t.Fatalf("only %d changes", len(changes))
	}
}

func TestAConstantLoadDoesNotFlap(t *testing.T) {
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 7))
		perSecond := 5 + 25*random.Float64()
		s := newScene(t, Config{Max: 100, Concurrency: 1 + int(seed%3)}, 12, 0)
		s.look.WorkTime = time.Duration(50+random.IntN(200)) * time.Millisecond
		changes, backlog, settled := 0, 0.0, 10*time.Minute
		for range 2700 { // an hour and a half
			came := 0
			for wait := random.ExpFloat64(); wait < 2*perSecond; wait += random.ExpFloat64() {
				came++
				p := random.IntN(len(s.look.Partitions))
				s.look.Partitions[p].Produced++
			}
			can := 2 * float64(s.look.Workers*s.config.Concurrency) / s.look.WorkTime.Seconds()
			backlog = max(0, backlog+float64(came)-can)
			for i := range s.look.Partitions {
				s.look.Partitions[i].Backlog = int64(backlog) / 12
			}
			d := s.decide(2*time.Second, 0, 0)
			if d.Workers != d.From && s.now > settled {
				changes++
			}
		}
		if changes > 3 {
			t.Errorf("seed %d, %.1f/s of %s: %d changes in an hour and a half", seed, perSecond, s.look.WorkTime, changes)
		}
	}
}

func TestDecideChangesNothingItIsGiven(t *testing.T) {
	s := newScene(t, Config{}, 3, 1)
	s.run(time.Minute, 3, 3)
	looks, decisions := slices.Clone(s.history.Looks), slices.Clone(s.history.Decisions)
	first := Decide(s.config, s.history)
	if second := Decide(s.config, s.history); first.Reason != second.Reason || first.Workers != second.Workers {
		t.Fatalf("first %q, then %q", first.Reason, second.Reason)
	}
	for i := range looks {
		if !slices.Equal(looks[i].Partitions, s.history.Looks[i].Partitions) {
			t.Fatal("a look was changed")
		}
	}
	for i := range decisions {
		if decisions[i].Reason != s.history.Decisions[i].Reason {
			t.Fatal("a decision was changed")
		}
	}
}

func TestHistoryStaysSmall(t *testing.T) {
	s := newScene(t, Config{}, 2, 0)
	s.run(3*time.Hour, 3, 3)
	if looks, decisions := len(s.history.Looks), len(s.history.Decisions); looks > 40 || decisions > 120 {
		t.Fatalf("%d looks and %d decisions are kept", looks, decisions)
	}
	if age := s.look.At.Sub(s.history.Looks[0].At); age < spans[len(spans)-1] {
		t.Fatalf("the oldest look is %s old", age)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	for _, c := range []Config{{Min: 11}, {Min: 3, Max: 2}, {Max: -1}, {Drain: -1}, {Concurrency: -1}} {
		if c.Validate() == nil {
			t.Errorf("%+v is valid", c)
		}
	}
}
