package autoscale

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Source gives a Loop its looks at a topic and a group.
type Source interface {
	// Next waits for the next look, and gives it. A broker that tells nothing makes
	// a look whose figures are Unknown; an error means that ctx has ended.
	Next(ctx context.Context, want Want) (Measurement, error)
}

// Want says when a Loop wants its next look, other than at the usual time.
type Want struct {
	// Wake has it come as soon as a record is there that waits.
	Wake bool
	// Within has it come so soon after the one before; 0 for the usual time.
	Within time.Duration
}

// Lease says whether this process is the one that decides.
type Lease interface {
	// Held tells whether it is now, and since which generation of the lease.
	// Without news from outside it turns false by the clock.
	Held() (generation int32, held bool)
	// Elsewhere tells whether another process is known to be the one. While
	// neither is so, nobody may be: the broker may be down for all.
	Elsewhere() bool
	// Changed gives a channel that is closed at the next change of what the
	// other two tell.
	Changed() <-chan struct{}
}

// LoopConfig says what a Loop joins. It does not change.
type LoopConfig struct {
	// Topic and Group are named in the log and in Status.
	Topic, Group string
	// Source is looked at, one look after the other.
	Source Source
	// Crew is told how many workers there should be. The Loop closes it.
	Crew Crew
	// Lease says whether this process decides. Default: it always does.
	Lease Lease
	// Logger takes each decision: at INFO where the number changes, else at DEBUG.
	Logger *zap.Logger
	// Told gets each decision with the look it was made from, one after the
	// other. Nil if nobody wants them.
	Told func(Decision, Measurement)
}

// Settings say how a Loop decides. They may change while it runs.
type Settings struct {
	// Config has the bounds and the pace.
	Config Config
	// DryRun has decisions made and told, and the crew left as it is.
	DryRun bool
}

// Status is what a Loop has come to.
type Status struct {
	Topic, Group string
	// Deciding says that this process holds the lease, since Generation.
	Deciding   bool
	Generation int32
	DryRun     bool
	// Running is how many workers there are; Unknown if nobody can tell.
	Running int
	// Last is the newest decision of this process, zero before the first.
	Last Decision
	// Decisions are the last ones, oldest first: those that changed the number
	// or the kind of its reason.
	Decisions []Decision
	// Oldest is for how long the oldest record has waited, 0 if none does,
	// Unknown if it cannot be told.
	Oldest time.Duration
}

// maxDecisions bounds how many decisions a Loop remembers for its Status.
const maxDecisions = 50

// Loop looks, decides and acts, again and again.
//
// One that does not hold the lease looks all the same, so that it knows what
// flows when it takes over. It then goes on from the workers that it finds.
type Loop struct {
	config LoopConfig
	log    *zap.Logger
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex
	settings Settings
	// deciding and generation are what the lease said last: a term. The history's
	// decisions are those of this term.
	deciding   bool
	generation int32
	history    History
	running    int // as seen last, Unknown before
	ordered    int // what the crew was told last, 0 since it was released
	oldest     time.Duration
	last       Decision
	kept       []Decision
}

// NewLoop begins to look, and waits for nothing.
func NewLoop(c LoopConfig, s Settings) *Loop {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Lease == nil {
		c.Lease = always{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Loop{
		config: c, settings: s, cancel: cancel, done: make(chan struct{}), running: Unknown, oldest: Unknown,
		log: c.Logger.With(zap.String("topic", c.Topic), zap.String("group", c.Group)),
	}
	var working sync.WaitGroup
	working.Go(func() { l.look(ctx) })
	working.Go(func() { l.watch(ctx) })
	go func() {
		defer close(l.done)
		working.Wait()
		c.Crew.Close()
	}()
	return l
}

// Use changes the settings, from the next look on. A number of workers that
// stays within the bounds stays.
func (l *Loop) Use(s Settings) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settings = s
}

// Status tells how things stand.
func (l *Loop) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	running := l.running
	if counter, ok := l.config.Crew.(Counter); ok && !l.settings.DryRun { // then the workers are others'
		running = counter.Running()
	}
	return Status{
		Topic: l.config.Topic, Group: l.config.Group,
		Deciding: l.deciding, Generation: l.generation, DryRun: l.settings.DryRun,
		Running: running, Last: l.last, Decisions: slices.Clone(l.kept), Oldest: l.oldest,
	}
}

// Close ends the loop, and closes the crew.
func (l *Loop) Close() {
	l.cancel()
	<-l.done
}

// look looks until the context ends.
func (l *Loop) look(ctx context.Context) {
	var want Want
	for {
		m, err := l.config.Source.Next(ctx, want)
		if err != nil {
			return
		}
		d, decided := l.decide(&m)
		if decided && l.config.Told != nil {
			l.config.Told(d, m)
		}
		// What waits although nobody is wanted, as in a paused partition, would
		// wake it at once, again and again.
		want = Want{Wake: decided && d.Workers == 0 && !m.waits(), Within: d.LookAgain}
	}
}

// watch follows the lease until the context ends. It does not wait for a look,
// which may take as long as a broker takes to answer.
func (l *Loop) watch(ctx context.Context) {
	for {
		changed := l.config.Lease.Changed()
		l.mu.Lock()
		l.turn()
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// turn begins or ends a term, as the lease says. The caller holds mu.
//
// Workers of this process stay where the lease has only run out: when the
// broker is down for all, nobody else starts any. They go as soon as it is known
// that another process decides.
func (l *Loop) turn() {
	generation, held := l.config.Lease.Held()
	if held != l.deciding || generation != l.generation {
		if held || l.deciding {
			l.log.Info("right to decide how many workers there are", zap.Bool("held", held), zap.Int32("generation", generation))
		}
		l.deciding, l.generation = held, generation
		l.history.Decisions = nil // what others have decided since is not known
	}
	if !held && l.config.Lease.Elsewhere() {
		l.config.Crew.Release()
		l.ordered = 0
	}
}

// decide makes a decision from one more look and acts on it, if this process is
// the one that decides. It fills in how many workers there are.
func (l *Loop) decide(m *Measurement) (Decision, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	l.running = l.count(*m)
	l.oldest = m.Oldest
	m.Workers = max(0, l.running)
	l.history.Look(*m)
	if !l.deciding || l.running < 0 {
		return Decision{}, false // a number would be a guess
	}
	c := l.settings.Config
	if len(l.history.Decisions) == 0 && len(l.history.Looks) > 1 {
		l.begin(*m)
	}
	d := Decide(c, l.history)
	l.history.Decided(c, d)
	l.remember(d)
	l.tell(d, *m)
	if !l.settings.DryRun {
		l.config.Crew.Scale(Order{Workers: d.Workers, Generation: l.generation})
		l.ordered = d.Workers
	}
	return d, true
}

// count tells how many workers there are, Unknown if nobody can tell.
func (l *Loop) count(m Measurement) int {
	counter, counts := l.config.Crew.(Counter)
	_, alone := l.config.Lease.(always)
	switch {
	case counts && !l.settings.DryRun && (alone || len(l.history.Decisions) > 0):
		return counter.Running()
	case counts && !l.settings.DryRun:
		// At the beginning of a term as many are taken over as another process
		// had. Own ones still run only where no other has decided; then members
		// may be the same ones twice, after an outage that has made them join anew.
		if n := counter.Running(); n > 0 {
			return n
		}
		// Members that were killed count until their session is over, and those of
		// two gateways that were killed in a row count twice. More than there are
		// partitions have nothing to do in any case.
		return max(0, min(m.Members, len(m.Partitions)))
	case m.Members >= 0:
		return m.Members
	default:
		return l.running
	}
}

// begin has the first decision of a term come after one that says: as many as
// there are. So the number is not lowered before this process has seen for a
// while what is needed. Nor is it where nobody else has decided since the last
// term: of those that were wanted then some may not be back yet after an outage.
// Zero workers are not taken over where it is not known what waits. The caller
// holds mu.
func (l *Loop) begin(m Measurement) {
	n := max(m.Workers, l.ordered)
	if m.Members < 0 || !m.complete() {
		n = max(n, l.settings.Config.floor())
	}
	l.history.Decided(l.settings.Config, Decision{
		At: m.At, Workers: n, From: n, Since: m.At, KnownAt: m.At, BusyAt: m.At,
		WorkTime: l.last.WorkTime,
	})
}

// remember keeps a decision for Status if it is news. The caller holds mu.
func (l *Loop) remember(d Decision) {
	before := l.last
	l.last = d
	if d.Workers == d.From && !before.At.IsZero() && d.alike(before) {
		return
	}
	if len(l.kept) == maxDecisions {
		l.kept = slices.Delete(l.kept, 0, 1)
	}
	l.kept = append(l.kept, d)
}

// alike tells whether two decisions have the same kind of reason.
func (d Decision) alike(other Decision) bool {
	return d.why == other.why && d.kept == other.kept &&
		len(d.Hot) == len(other.Hot) && len(d.Poisoned) == len(other.Poisoned) && len(d.Slow) == len(other.Slow)
}

// tell logs a decision.
func (l *Loop) tell(d Decision, m Measurement) {
	level := zap.DebugLevel
	if d.Workers != d.From {
		level = zap.InfoLevel
	}
	if c := l.log.Check(level, "number of workers"); c != nil {
		c.Write(
			zap.Int("workers", d.Workers), zap.Int("before", d.From), zap.Int("running", m.Workers),
			zap.String("reason", d.Reason), zap.Bool("dry_run", l.settings.DryRun), zap.Int32("generation", l.generation),
			zap.Float64("inflow", d.Inflow), zap.Float64("outflow", d.Outflow), zap.Int64("backlog", d.Backlog),
			zap.Duration("oldest", m.Oldest), zap.Duration("work_time", d.WorkTime), zap.Float64("gradient", d.Gradient),
		)
	}
}

// complete tells whether it is known of all that these workers share what waits.
func (m *Measurement) complete() bool {
	return len(m.Partitions) > 0 && !slices.ContainsFunc(m.Partitions, func(p Partition) bool { return p.Backlog < 0 && !p.Elsewhere })
}

// waits tells whether anything is known to wait.
func (m *Measurement) waits() bool {
	return slices.ContainsFunc(m.Partitions, func(p Partition) bool { return p.Backlog > 0 })
}

// always is the lease of a process that is alone.
type always struct{}

func (always) Held() (int32, bool)      { return 0, true }
func (always) Elsewhere() bool          { return false }
func (always) Changed() <-chan struct{} { return nil }

// Interface guards
var (
	_ Lease   = always{}
	_ Crew    = (*Processes)(nil)
	_ Counter = (*Processes)(nil)
)
