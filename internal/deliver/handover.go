package deliver

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
)

const (
	// signInterval is how often a run that has handed tries over says that it is
	// alive.
	signInterval = 2 * time.Second
	// aliveFor is how long it counts on that, from when it sent the last one that it
	// has read on the control topic. Then its tries produce nothing more.
	aliveFor = 7 * time.Second
	// silence is how long the next owner waits for a sign before it declares a run
	// dead. It is longer than aliveFor, and both clocks only measure time that passes.
	silence = 10 * time.Second
	// watchInterval is how often the owner looks after the runs that it waits for.
	watchInterval = time.Second

	// maxOutcomes bounds the outcomes that are remembered of tries whose partitions
	// are others', and maxRuns the runs that are. The oldest go first.
	maxOutcomes = 20_000
	maxRuns     = 1000
)

// handovers are the tries that run where their partition is not: those of this
// run, whose partitions went to others, and those of other runs that this member's
// partitions wait for.
//
// All that members say about them is on the control topic, which has one partition,
// so that everybody reads it in the same order. A run that has handed tries over
// signs there that it is alive. Who misses that declares the run dead, with the
// number of the last sign it has read; the declaration counts unless a later sign
// stands before it. So whether a run is dead is a function of the log, and the
// clocks decide only when somebody asks.
type handovers struct {
	d *Delivery

	mu sync.Mutex
	// own is this run, until it is declared dead and takes another name.
	own run
	// tries is how many this run has handed over and not told the outcome of.
	tries int
	// sign is the number of the last one sent, and sent when each was that may
	// still be read.
	sign int64
	sent map[int64]time.Time
	// signed is the number of the last one that was read, read when it was sent.
	signed int64
	read   time.Time
	// news is closed at the next change.
	news chan struct{}

	// runs are the others that were heard of, outcomes what they have told.
	runs     map[run]*life
	outcomes map[outcomeKey]outcome
	order    []outcomeKey // of the outcomes, the oldest first
}

// life is what is known of another run.
type life struct {
	sign  int64
	heard time.Time
	dead  bool
}

// outcomeKey is where the outcome of a try belongs.
type outcomeKey struct {
	life      uint32
	partition int32
	offset    int64
	by        run
	try       int
	state     outcomeState
}

func newHandovers(d *Delivery) *handovers {
	return &handovers{
		d: d, own: newRun(), sent: make(map[int64]time.Time), news: make(chan struct{}),
		runs: make(map[run]*life), outcomes: make(map[outcomeKey]outcome),
	}
}

// changed wakes those who wait. Needs the lock.
func (h *handovers) changed() {
	close(h.news)
	h.news = make(chan struct{})
}

// alive reports whether a run is this one, and surely not declared dead.
func (h *handovers) alive(r run) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r == h.own && h.fresh()
}

// owner is this run.
func (h *handovers) owner() run {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.own
}

// fresh is alive, of this run and with the lock.
func (h *handovers) fresh() bool { return !h.read.IsZero() && time.Since(h.read) < aliveFor }

// establish makes sure that this run is known to be alive, so that tries can be
// handed over. It reports whether that worked out in time.
func (h *handovers) establish(ctx context.Context) bool {
	if h.d.config.Control == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	h.mu.Lock()
	recent := h.tries > 0 && h.fresh()
	h.mu.Unlock()
	if recent {
		return true
	}
	sign := h.signNow(ctx)
	for sign > 0 {
		h.mu.Lock()
		news := h.news
		_, unread := h.sent[sign]
		alive := h.fresh()
		h.mu.Unlock()
		if !unread {
			return alive
		}
		select {
		case <-news:
		case <-ctx.Done():
			return false
		}
	}
	return false
}

// add notes that tries were handed over. Signs go on until their outcomes are told.
func (h *handovers) add(tries int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tries += tries
	h.changed()
}

// await waits until the outcomes of all tries that were handed over are told, and
// reports whether that was before ctx ended.
func (h *handovers) await(ctx context.Context) bool {
	for {
		h.mu.Lock()
		news, left := h.news, h.tries
		h.mu.Unlock()
		if left == 0 {
			return true
		}
		select {
		case <-news:
		case <-ctx.Done():
			return false
		}
	}
}

// signNow produces a sign of life, and gives its number, 0 if the broker did not
// take it.
func (h *handovers) signNow(ctx context.Context) int64 {
	h.mu.Lock()
	h.sign++
	own, sign := h.own, h.sign
	h.sent[sign] = time.Now()
	for old, at := range h.sent {
		if time.Since(at) > time.Minute {
			delete(h.sent, old) // it was never read
		}
	}
	h.mu.Unlock()
	if err := h.d.tell(ctx, message{Run: own.String(), Sign: sign}); err != nil {
		if ctx.Err() == nil {
			h.d.log.Debug("sign of life not produced", h.d.fields(zap.Error(err))...)
		}
		return 0
	}
	signal(h.d.control.wanted) // the topic may have been made just now
	return sign
}

// signs produces them while there is need.
func (h *handovers) signs(ctx context.Context) {
	tick := time.NewTicker(signInterval)
	defer tick.Stop()
	for {
		h.mu.Lock()
		news, needed := h.news, h.tries > 0
		h.mu.Unlock()
		if !needed {
			select {
			case <-ctx.Done():
				return
			case <-news:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		telling, cancel := context.WithTimeout(ctx, aliveFor)
		h.signNow(telling)
		cancel()
	}
}

// ended tells the next owner how a try has ended that was handed over, and is
// called by its goroutine. It repeats that until the broker has it, or the run is
// dead to the others.
func (h *handovers) ended(j *job, done bool) {
	defer h.add(-1)
	o := outcome{life: j.partition().progress.incarnation, offset: j.record.Offset, by: j.handedBy, try: j.handedAs, state: outcomeFailed, past: j.past, id: j.id}
	if done {
		o.state, o.past = outcomeDone, past{}
	}
	// The partition may have come back, or come back later, and nobody else could
	// tell this process.
	h.keep(j.partition().number, o)
	h.d.queue.settle(j.partition().number, o)
	if err := h.tell(h.d.ctx, j, o); err != nil {
		h.d.log.Warn("outcome of a try not told to the partition's new owner; it counts as cut short there",
			h.d.fields(zap.Int32("partition", j.partition().number), zap.Int64("offset", j.record.Offset), zap.String("stream", j.id), zap.Error(err))...)
	}
}

// started tells the next owner that the answer of a try begins to go out.
func (h *handovers) started(ctx context.Context, j *job) error {
	return h.tell(ctx, j, outcome{life: j.partition().progress.incarnation, offset: j.record.Offset, by: j.handedBy, try: j.handedAs, state: outcomeStarted})
}

var errDead = errors.New("the partition's owner has taken this process for dead")

// tell produces an outcome.
func (h *handovers) tell(ctx context.Context, j *job, o outcome) error {
	m := h.d.outcomeMessage(j.partition().number, o)
	var pause backoff.Backoff
	for {
		if h.owner() != o.by {
			return errDead
		}
		err := h.d.tell(ctx, m)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrRefused) {
			return err
		}
		if !pause.Sleep(ctx) {
			return err
		}
	}
}

// take takes what a message of the control topic says about runs and their tries.
func (h *handovers) take(m message) {
	switch {
	case m.Dead != "":
		h.takeDeath(m)
	case m.Sign > 0:
		h.takeSign(m)
	default:
		// Kept first: the partition may come to this member right now.
		if number, o, ok := h.d.outcomeOf(m); ok {
			h.keep(number, o)
			h.d.queue.settle(number, o)
		}
	}
}

func (h *handovers) takeSign(m message) {
	r, ok := parseRun(m.Run)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r == h.own {
		h.signed = max(h.signed, m.Sign)
		if at, ok := h.sent[m.Sign]; ok {
			delete(h.sent, m.Sign)
			if at.After(h.read) {
				h.read = at
			}
			h.changed()
		}
		return
	}
	l := h.life(r)
	l.sign, l.heard = max(l.sign, m.Sign), time.Now()
}

// life gives what is known of a run. Needs the lock.
func (h *handovers) life(r run) *life {
	if l := h.runs[r]; l != nil {
		return l
	}
	if len(h.runs) >= maxRuns {
		var oldest run
		var since time.Time
		for other, l := range h.runs {
			if since.IsZero() || l.heard.Before(since) {
				oldest, since = other, l.heard
			}
		}
		delete(h.runs, oldest)
	}
	l := &life{heard: time.Now()}
	h.runs[r] = l
	return l
}

// takeDeath takes a declaration that a run is dead. It counts unless the run has
// signed after what its author had read.
func (h *handovers) takeDeath(m message) {
	r, ok := parseRun(m.Dead)
	if !ok {
		return
	}
	h.mu.Lock()
	l := h.life(r)
	own := r == h.own
	if own {
		l.sign = h.signed
	}
	dead := !l.dead && l.sign <= m.Sign
	l.dead = l.dead || dead
	if dead && own {
		h.own, h.signed, h.read, h.sent = newRun(), 0, time.Time{}, make(map[int64]time.Time)
		h.d.queue.rename(h.own)
	}
	tries := h.tries
	h.mu.Unlock()
	if !dead {
		return
	}
	if own {
		if tries > 0 {
			h.d.log.Warn("this process was out of reach for too long; the tries that it had handed over are cut short", h.d.fields(zap.Int("tries", tries))...)
		}
		h.d.queue.cancelHanded(errLost)
	}
	h.bury(r)
}

// bury counts the tries of a run as cut short.
func (h *handovers) bury(r run) {
	if n := h.d.queue.died(r); n > 0 {
		h.d.log.Warn("process with tries that it had handed over is out of reach; they count as cut short", h.d.fields(zap.Int("tries", n))...)
	}
}

// keep remembers an outcome for the time when its partition may come to this
// member.
func (h *handovers) keep(number int32, o outcome) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := outcomeKey{o.life, number, o.offset, o.by, o.try, o.state}
	if _, ok := h.outcomes[at]; !ok {
		h.order = append(h.order, at)
	}
	h.outcomes[at] = o
	if len(h.outcomes) > maxOutcomes {
		delete(h.outcomes, h.order[0])
		h.order = h.order[1:]
	}
}

// settle applies the outcomes that were told of a partition before it came to this
// member, and the deaths.
func (h *handovers) settle(number int32) {
	h.mu.Lock()
	var all []outcome
	for _, at := range h.order {
		if at.partition == number {
			all = append(all, h.outcomes[at])
		}
	}
	h.mu.Unlock()
	for _, o := range all {
		h.d.queue.settle(number, o)
	}
	for _, r := range h.d.queue.foreign() {
		if h.isDead(r) {
			h.bury(r)
		}
	}
}

func (h *handovers) isDead(r run) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.runs[r]
	return l != nil && l.dead
}

// watch looks after the runs that have tries of this member's partitions, and
// declares dead those that are silent.
func (h *handovers) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	waited := make(map[run]time.Time)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		waiting := h.d.queue.foreign()
		next := make(map[run]time.Time, len(waiting))
		for _, r := range waiting {
			since, ok := waited[r]
			if !ok {
				since = time.Now()
			}
			next[r] = since
			if sign, silent := h.silent(r, since); silent {
				telling, cancel := context.WithTimeout(ctx, aliveTimeout)
				if err := h.d.tell(telling, message{Dead: r.String(), Sign: sign}); err != nil && ctx.Err() == nil {
					h.d.log.Debug("silence of a process not told", h.d.fields(zap.Error(err))...)
				}
				cancel()
			}
		}
		waited = next
	}
}

// silent reports whether nothing was heard of a run for too long, and its last sign.
func (h *handovers) silent(r run, since time.Time) (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r == h.own {
		return h.sign, false
	}
	l := h.runs[r]
	if l == nil {
		return 0, time.Since(since) >= silence
	}
	if l.heard.After(since) {
		since = l.heard
	}
	return l.sign, time.Since(since) >= silence
}
