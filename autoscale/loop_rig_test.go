package autoscale

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// every is the time between two looks of a fakeSource.
const every = 2 * time.Second

// fakeSource is a topic of four partitions that a test fills by hand.
type fakeSource struct {
	mu   sync.Mutex
	look Measurement
	wake bool          // somebody waits to be woken
	came chan struct{} // a record has come while somebody waits for it
}

func newSource() *fakeSource {
	return &fakeSource{came: make(chan struct{}, 1), look: Measurement{
		WorkTime: 100 * time.Millisecond, Keys: Unknown, Members: Unknown, Partitions: make([]Partition, 4),
	}}
}

// change changes what the next look sees.
func (s *fakeSource) change(f func(*Measurement)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.look)
}

// produce puts n records on each partition.
func (s *fakeSource) produce(n int64) {
	s.change(func(m *Measurement) {
		for i := range m.Partitions {
			m.Partitions[i].Produced += n
			m.Partitions[i].Backlog += n
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake {
		select {
		case s.came <- struct{}{}:
		default:
		}
	}
}

// work has all that waits be done.
func (s *fakeSource) work() {
	s.change(func(m *Measurement) {
		for i := range m.Partitions {
			m.Partitions[i].Done, m.Partitions[i].Backlog = m.Partitions[i].Produced, 0
		}
	})
}

// dark has nothing be known until light.
func (s *fakeSource) dark() {
	s.change(func(m *Measurement) {
		m.Oldest, m.Members = Unknown, Unknown
		for i := range m.Partitions {
			m.Partitions[i] = Partition{Backlog: Unknown, Produced: Unknown, Done: Unknown}
		}
	})
}

func (s *fakeSource) light(produced int64) {
	s.change(func(m *Measurement) {
		for i := range m.Partitions {
			m.Partitions[i] = Partition{Produced: produced, Done: produced}
		}
	})
}

func (s *fakeSource) Next(ctx context.Context, want Want) (Measurement, error) {
	s.mu.Lock()
	s.wake = want.Wake
	s.mu.Unlock()
	timer := time.NewTimer(cmp.Or(want.Within, every))
	defer timer.Stop()
	var came <-chan struct{}
	if want.Wake {
		came = s.came
	}
	select {
	case <-ctx.Done():
		return Measurement{}, ctx.Err()
	case <-timer.C:
	case <-came:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.look
	m.At, m.Partitions = time.Now(), slices.Clone(m.Partitions)
	return m, nil
}

// fakeCrew has as many workers as it was told, at once.
type fakeCrew struct {
	mu       sync.Mutex
	orders   []Order // that changed something, with when
	at       []time.Time
	workers  int
	scaled   int // how often it was told
	released int
	closed   int
}

func (c *fakeCrew) Scale(o Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed > 0 {
		panic("scaled after it was closed")
	}
	c.scaled++
	if o.Workers != c.workers {
		c.workers = o.Workers
		c.orders, c.at = append(c.orders, o), append(c.at, time.Now())
	}
}

func (c *fakeCrew) Release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released++
	c.workers = 0
}

func (c *fakeCrew) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed++
	c.workers = 0
}

func (c *fakeCrew) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.workers
}

// change has some workers come or go by themselves.
func (c *fakeCrew) change(by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workers += by
}

// wants checks how many workers there are, and how often that has changed.
func (c *fakeCrew) wants(t *testing.T, workers, changes int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.workers != workers || len(c.orders) != changes {
		t.Fatalf("%d workers after %v, want %d after %d changes", c.workers, c.orders, workers, changes)
	}
}

// remote is a Crew whose workers nobody counts.
type remote struct{ crew *fakeCrew }

func (r remote) Scale(o Order) { r.crew.Scale(o) }
func (r remote) Release()      {}
func (r remote) Close()        { r.crew.Close() }

// fakeLease is held as a test says.
type fakeLease struct {
	mu              sync.Mutex
	generation      int32
	held, elsewhere bool
	changed         chan struct{}
}

func newFakeLease() *fakeLease { return &fakeLease{changed: make(chan struct{})} }

func (l *fakeLease) set(generation int32, held, elsewhere bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation, l.held, l.elsewhere = generation, held, elsewhere
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLease) Held() (int32, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation, l.held
}

func (l *fakeLease) Elsewhere() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.elsewhere
}

func (l *fakeLease) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// stage is a loop with all that it joins.
type stage struct {
	*Loop
	source *fakeSource
	crew   *fakeCrew
	lease  *fakeLease
	logs   *observer.ObservedLogs
	told   []Decision
}

// onStage runs a test in virtual time. What it starts with can be changed before.
func onStage(t *testing.T, s Settings, test func(t *testing.T, s *stage), before ...func(*stage, *LoopConfig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		st := &stage{source: newSource(), crew: new(fakeCrew), logs: logs}
		c := LoopConfig{
			Topic: "orders", Group: "workers", Source: st.source, Crew: st.crew, Logger: zap.New(core),
			Told: func(d Decision, _ Measurement) { st.told = append(st.told, d) },
		}
		for _, f := range before {
			f(st, &c)
		}
		st.Loop = NewLoop(c, s)
		defer st.Close()
		test(t, st)
	})
}

// leased gives a stage a lease that nobody holds.
func leased(s *stage, c *LoopConfig) {
	s.lease = newFakeLease()
	c.Lease = s.lease
}

// uncounted gives it a crew that nobody counts.
func uncounted(s *stage, c *LoopConfig) { c.Crew = remote{s.crew} }

// load has records come and be done for a while, in each partition so many a second.
func (s *stage) load(span time.Duration, perSecond float64) {
	for begun := time.Now(); time.Since(begun) < span; {
		s.source.produce(int64(perSecond * every.Seconds()))
		s.source.work()
		settle(every)
	}
}
