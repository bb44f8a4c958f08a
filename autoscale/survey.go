package autoscale

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// SurveyConfig says how a Survey looks. Only Broker is needed.
type SurveyConfig struct {
	// Broker is the cluster.
	Broker *broker.Client
	// Every is the time from one look to the next. Default 2s.
	Every time.Duration
	// Ahead tells what a commit's metadata says of the records at and after its
	// offset: how many are done, and how many were tried in vain and wait to be
	// tried again. Nil where nobody writes such metadata.
	Ahead func(offset int64, metadata string) (done, waiting int64)
	// Logger is told when it is not known any more what waits, and when it is again.
	Logger *zap.Logger
}

// Watched is a topic and the group that works on it.
type Watched struct {
	Topic, Group string
	// Concurrency is how many records one member of the group works on at once.
	// Default 1.
	Concurrency int
	// FromLatest says that members begin at the topic's end where nothing is
	// committed, instead of at the oldest record.
	FromLatest bool
}

// Survey looks at all topics and groups of one cluster that somebody watches, with
// few requests a look: one for the topics, one a coordinator for the commits of its
// groups, two a leader for the starts and ends of its partitions, and now and
// then one a coordinator for the members.
//
// # Concurrency
//
// It is safe for use by many goroutines. From the first Watch to Close it runs one
// of its own, which is alone with what was measured, and one for each broker that
// it waits at for records that are to wake somebody.
type Survey struct {
	config SurveyConfig
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	work   sync.WaitGroup
	news   chan struct{} // of watches and wishes; has room for one
	came   chan wakening // from held
	start  sync.Once

	mu      sync.Mutex
	watches []*Watch

	// The rest is the look's goroutine's.
	topics map[string]*topic
	groups map[string]*group
	held   map[int32]*hold // by leader
	number int             // of looks, so that turns are taken
}

// errClosed is given to who waits for a look that will not come.
var errClosed = errors.New("the survey has ended")

// NewSurvey makes a Survey. It starts nothing until the first Watch.
func NewSurvey(c SurveyConfig) *Survey {
	if c.Every <= 0 {
		c.Every = 2 * time.Second
	}
	if c.Ahead == nil {
		c.Ahead = func(int64, string) (int64, int64) { return 0, 0 }
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	s := &Survey{
		config: c, news: make(chan struct{}, 1), came: make(chan wakening),
		topics: make(map[string]*topic), groups: make(map[string]*group), held: make(map[int32]*hold),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Watch begins to look at a topic and a group. Neither needs to be there.
func (s *Survey) Watch(of Watched) *Watch {
	of.Concurrency = max(of.Concurrency, 1)
	w := &Watch{survey: s, of: of, looks: make(chan Measurement, 1), closed: make(chan struct{})}
	w.effort.concurrency = of.Concurrency
	s.mu.Lock()
	s.watches = append(s.watches, w)
	s.mu.Unlock()
	s.start.Do(func() { s.work.Go(s.run) })
	s.tell()
	return w
}

// Close ends all looks, and waits until nothing runs any more.
func (s *Survey) Close() {
	s.cancel()
	s.work.Wait()
}

// tell has the look's goroutine see who watches, and what they want.
func (s *Survey) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// Watch is one topic and group that a Survey looks at. It implements Source.
type Watch struct {
	survey *Survey
	of     Watched
	looks  chan Measurement // the newest, if nobody has taken it
	once   sync.Once
	closed chan struct{}

	want Want // guarded by survey.mu: what the last Next asked for

	// The rest is the look's goroutine's.
	topic  *topic
	group  *group
	parts  []part
	effort effort
	at     time.Time // of the last look
	blind  bool      // it was told that it is not known what waits
	missed bool      // it was told that there is no such topic
}

// Next implements Source. A watch that is closed, or whose survey is, gives an
// error as well.
func (w *Watch) Next(ctx context.Context, want Want) (Measurement, error) {
	s := w.survey
	s.mu.Lock()
	changed := w.want != want
	w.want = want
	s.mu.Unlock()
	if changed {
		s.tell()
	}
	select {
	case m := <-w.looks:
		return m, nil
	case <-ctx.Done():
		return Measurement{}, ctx.Err()
	case <-w.closed:
	case <-s.ctx.Done():
	}
	return Measurement{}, errClosed
}

// Close ends the looks at it.
func (w *Watch) Close() {
	w.once.Do(func() { close(w.closed) })
	s := w.survey
	s.mu.Lock()
	s.watches = slices.DeleteFunc(s.watches, func(other *Watch) bool { return other == w })
	s.mu.Unlock()
	s.tell()
}

// hand gives a look to who waits for it, in the place of one that nobody took.
func (w *Watch) hand(m Measurement) {
	select {
	case <-w.looks:
	default:
	}
	w.looks <- m // only this goroutine sends
}

// run looks until Close.
func (s *Survey) run() {
	tick := time.NewTicker(s.config.Every)
	defer tick.Stop()
	for {
		early, soon := s.early()
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
			watches := s.joined(nil)
			s.look(watches)
		case <-s.news:
			var fresh []*Watch
			s.joined(&fresh)
			if len(fresh) > 0 {
				s.look(fresh)
			}
		case <-soon:
			s.look(early)
		case came := <-s.came:
			s.woken(came)
		}
		if s.ctx.Err() != nil {
			return
		}
		s.hold()
	}
}

// joined gives all watches, and drops what nobody watches any more. Those that are
// new get their topic and group, and are added to fresh.
func (s *Survey) joined(fresh *[]*Watch) []*Watch {
	s.mu.Lock()
	watches := slices.Clone(s.watches)
	s.mu.Unlock()
	for _, t := range s.topics {
		t.watches = t.watches[:0]
	}
	for _, g := range s.groups {
		g.watches = g.watches[:0]
	}
	for _, w := range watches {
		if w.topic == nil {
			w.topic, w.group = s.topics[w.of.Topic], s.groups[w.of.Group]
			if w.topic == nil {
				w.topic = &topic{name: w.of.Topic}
				s.topics[w.of.Topic] = w.topic
			}
			if w.group == nil {
				w.group = &group{name: w.of.Group, members: Unknown}
				s.groups[w.of.Group] = w.group
			}
			if fresh != nil {
				*fresh = append(*fresh, w)
			}
		}
		w.topic.watches = append(w.topic.watches, w)
		w.group.watches = append(w.group.watches, w)
	}
	for name, t := range s.topics {
		if len(t.watches) == 0 {
			delete(s.topics, name)
		}
	}
	for name, g := range s.groups {
		if len(g.watches) == 0 {
			delete(s.groups, name)
		}
	}
	return watches
}

// early gives the watches that want their next look before the usual time, those
// whose time comes first, and when that is.
func (s *Survey) early() (first []*Watch, soon <-chan time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var at time.Time
	for _, w := range s.watches {
		if w.want.Within <= 0 || w.topic == nil {
			continue
		}
		switch due := w.at.Add(w.want.Within); {
		case len(first) == 0 || due.Before(at):
			first, at = []*Watch{w}, due
		case due.Equal(at):
			first = append(first, w)
		}
	}
	if len(first) > 0 {
		soon = time.After(time.Until(at))
	}
	return first, soon
}

// wishes tells which watches want to be woken.
func (s *Survey) wishes() map[*Watch]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	wish := make(map[*Watch]bool)
	for _, w := range s.watches {
		if w.want.Wake {
			wish[w] = true
		}
	}
	return wish
}

// Interface guard.
var _ Source = (*Watch)(nil)
