package autoscale

import (
	"math"
	"slices"
	"time"
)

// load is what a history says is to be done now.
type load struct {
	known, blind bool // all of it is known; none of it is
	backlog      int64
	inflow       float64 // records a second that can be worked on
	outflow      float64
	busy         bool          // something waits, or has come since the last look
	workTime     time.Duration // 0 if it was never known
	guessed      bool          // it was never known
	spent        bool          // and workers have had the time to show it
	few          bool          // little waits: half of the workers might do
	growing      bool          // more comes than is done, since then
	residual     float64       // seconds that a record in work goes on taking
	jumped       bool          // more comes than a moment ago
	rising       float64       // by what inflow grows, as a factor; it is in what follows
	inWorkers    float64       // workers that inflow would take, and the backlog
	behind       float64
	forInflow    float64 // what of those can work: one a partition at most
	forBacklog   float64
	shared       int     // partitions that these workers share
	catchingUp   int     // those whose backlog takes a worker for longer than the target
	hot          []int32 // more than a worker's share comes in there
	poisoned     []int32
	slow         []int32
	paused       int
	stuck        bool // most partitions wait, and none moves
}

// guess is the part of the drain target that a record is taken to take while nobody
// can know: a worker for each ten that wait. That is for a first burst. Once
// workers have had the time to work, what comes in brings none any more by a guess.
const guess = 10

// loadOf works out the load at the last look of h.
func loadOf(c Config, h History) load {
	now := h.Looks[len(h.Looks)-1]
	l := load{known: true, blind: true, workTime: now.WorkTime}
	if l.workTime <= 0 && len(h.Decisions) > 0 {
		l.workTime = h.Decisions[len(h.Decisions)-1].WorkTime
	}
	wokenAt := h.wokenAt()
	if l.workTime <= 0 {
		l.workTime, l.guessed = c.Drain/guess, true
		l.spent = now.At.Sub(wokenAt) >= c.Lead && (now.Workers > 0 || !wokenAt.IsZero())
	}
	l.known = len(now.Partitions) > 0
	l.residual = c.residual(l.workTime.Seconds(), now.WorkSpread)
	backlogs, counts := l.partitions(c, h)

	// What had come when it was woken from zero came in no time that is known.
	looks := h.since(wokenAt)
	if len(looks) == 1 && !l.guessed {
		looks = h.Looks // at least that many came
	}
	span, jumped := steadySpan(looks, counts)
	flows := rates(looks, span)
	l.jumped = jumped && span < fresh
	l.rising = rising(looks, span, counts, c.Lead)
	seconds := l.workTime.Seconds() / float64(c.Concurrency)
	drain := c.Drain.Seconds()
	// What is being worked on does not wait. Nobody says where it is.
	waits := 1.0
	if l.backlog > 0 {
		waits = 1 - math.Min(1, float64(now.Workers*c.Concurrency)/float64(l.backlog))
	}
	for i, rate := range flows {
		if !counts[i] {
			continue
		}
		l.inflow += rate.in
		l.outflow += rate.out
		in := seconds * rate.in * l.rising
		if l.spent {
			in = 0
		}
		behind := seconds * float64(backlogs[i]) * waits / drain
		l.inWorkers += in
		l.behind += behind
		if !c.Keyed {
			// One worker at a time has a partition, whatever waits there.
			if behind > 1 && in < 1 {
				l.catchingUp++
			}
			in = math.Min(in, 1)
			behind = math.Min(behind, 1-in)
		}
		l.forInflow += in
		l.forBacklog += behind
	}
	for i, rate := range rates(h.Looks, 0) {
		p := now.Partitions[i]
		l.busy = l.busy || rate.in > 0 && !p.Paused && !p.Elsewhere
	}
	if l.spent {
		half := (now.Workers + 1) / 2 * c.Concurrency
		l.few = l.backlog <= int64(half) || float64(l.backlog) <= patience*drain*l.outflow
		l.growing = growing(h.since(wokenAt.Add(c.Lead)), counts, 2*c.Lead)
	}
	if !c.Keyed && !l.guessed {
		l.hot = hot(h.Looks, counts, seconds)
	}
	return l
}

// growing tells whether less than half of what came in a span was done, and some was:
// where commits are rare, a little less says nothing, and what stands still is not
// helped by more.
func growing(looks []Measurement, counts []bool, span time.Duration) bool {
	if looks[len(looks)-1].At.Sub(looks[0].At) < span {
		return false
	}
	in, out := 0.0, 0.0
	for i, rate := range rates(looks, span) {
		if counts[i] {
			in, out = in+rate.in, out+rate.out
		}
	}
	return out > 0 && out < in/2
}

// deadly is how many members a partition has to lose before that is put down to its
// record. A deploy, or fewer workers, costs it one.
const deadly = 3

// partitions goes through them: what waits in each, and which ones the load is made of.
func (l *load) partitions(c Config, h History) (backlogs []int64, counts []bool) {
	now := h.Looks[len(h.Looks)-1]
	backlogs = make([]int64, len(now.Partitions))
	counts = make([]bool, len(now.Partitions))
	waiting, stalled := 0, 0
	for i, p := range now.Partitions {
		if p.Elsewhere {
			continue
		}
		l.shared++
		if p.Backlog < 0 || p.Produced < 0 {
			l.known = false
		} else {
			l.blind = false
		}
		if p.Paused {
			l.paused++
			continue
		}
		backlogs[i] = lastGood(h.Looks, i)
		l.busy = l.busy || backlogs[i] > 0
		if backlogs[i] > 0 {
			waiting++
		}
		dies := p.Lost >= deadly && p.Stalled >= c.Stuck
		// Nobody can tell a long record from a worker that hangs; where it is not known
		// how long records take, not even that this one is long.
		slow := !l.guessed && p.Stalled >= max(c.Stuck, 10*l.workTime)
		if dies || slow {
			stalled++
		}
		switch {
		case p.Poisoned || dies:
			l.poisoned = append(l.poisoned, int32(i)) //nolint:gosec // partition numbers are 32 bits
			continue
		case slow:
			l.slow = append(l.slow, int32(i)) //nolint:gosec // the same
			continue
		}
		counts[i] = true
		l.backlog += backlogs[i]
	}
	l.stuck = stalled == waiting && 2*stalled > l.shared
	return backlogs, counts
}

// trendFrom is the shortest span that a trend is told from: what has jumped is not
// taken for what grows.
const trendFrom = 10 * time.Second

// rising gives by what factor the inflow a while ahead is more than its mean of a
// span. It is 1 unless the later half of the span has more than the earlier one by three deviations.
func rising(looks []Measurement, span time.Duration, counts []bool, ahead time.Duration) float64 {
	last, from, half := len(looks)-1, before(looks, span), before(looks, span/2)
	if span < trendFrom || half <= from || half >= last || len(looks[half].Partitions) != len(counts) {
		return 1
	}
	for i, count := range counts {
		if count && (!looks[from].tells(i) || !looks[half].tells(i)) {
			return 1 // an outage is no trend
		}
	}
	earlier, later := looks[half].At.Sub(looks[from].At), looks[last].At.Sub(looks[half].At)
	was, is := inflow(looks[:half+1], earlier, counts), inflow(looks, later, counts)
	mean := (was*earlier.Seconds() + is*later.Seconds()) / (earlier + later).Seconds()
	if is-was <= 3*math.Sqrt(mean/earlier.Seconds()+mean/later.Seconds()) {
		return 1
	}
	slope := (is - was) / ((earlier + later).Seconds() / 2)
	return (is + slope*(later/2+ahead).Seconds()) / mean
}

// hotSpan is how long more than a worker can do must have come into a partition,
// on average, for it to be called hot.
const hotSpan = 40 * time.Second

// hot lists the partitions into which more comes than one worker can do at so
// many seconds a record, and more than twice of what comes into others.
func hot(looks []Measurement, counts []bool, seconds float64) []int32 {
	if looks[len(looks)-1].At.Sub(looks[0].At) < hotSpan {
		return nil
	}
	flows := rates(looks, hotSpan)
	sum, n := 0.0, 0
	for i, flow := range flows {
		if counts[i] {
			sum, n = sum+flow.in, n+1
		}
	}
	var found []int32
	for i, flow := range flows {
		if counts[i] && seconds*flow.in > 1 && flow.in*float64(n) > 2*sum {
			found = append(found, int32(i)) //nolint:gosec // partition numbers are 32 bits
		}
	}
	return found
}

// lastGood gives the newest backlog of a partition that is known, 0 if there is none.
func lastGood(looks []Measurement, partition int) int64 {
	for _, look := range slices.Backward(looks) {
		if partition < len(look.Partitions) && look.Partitions[partition].Backlog >= 0 {
			return look.Partitions[partition].Backlog
		}
	}
	return 0
}

// rate is what flows through a partition, in records a second.
type rate struct{ in, out float64 }

// rates gives what flowed through the last look's partitions over about a span.
// Counts that went back say nothing.
func rates(looks []Measurement, span time.Duration) []rate {
	now, from := looks[len(looks)-1], before(looks, span)
	found := make([]rate, len(now.Partitions))
	for i, p := range now.Partitions {
		then := comparedWith(looks, from, i)
		if then == len(looks)-1 {
			continue
		}
		old, elapsed := looks[then].Partitions[i], now.At.Sub(looks[then].At).Seconds()
		if p.Produced > old.Produced {
			found[i].in = float64(p.Produced-old.Produced) / elapsed
		}
		if p.Done > old.Done && old.Done >= 0 {
			found[i].out = float64(p.Done-old.Done) / elapsed
		}
	}
	return found
}

// inflow gives the sum of what came into the partitions that count.
func inflow(looks []Measurement, span time.Duration, counts []bool) float64 {
	now, from := looks[len(looks)-1], before(looks, span)
	sum, same := 0.0, int64(0)
	for i, p := range now.Partitions {
		if !counts[i] {
			continue
		}
		then := comparedWith(looks, from, i)
		n := max(0, p.Produced-looks[then].Partitions[i].Produced)
		if then == from {
			same += n // nearly all of them
		} else if n > 0 {
			sum += float64(n) / now.At.Sub(looks[then].At).Seconds()
		}
	}
	if same > 0 {
		sum += float64(same) / now.At.Sub(looks[from].At).Seconds()
	}
	return sum
}

// before gives the newest look that is at least a span old, or the oldest.
func before(looks []Measurement, span time.Duration) int {
	last := len(looks) - 1
	from := max(0, last-1)
	for from > 0 && looks[last].At.Sub(looks[from].At) < span {
		from--
	}
	return from
}

// comparedWith gives the look that a partition's counts are compared with: the one
// given, or where it was unknown then, one before it, or else after it. It is
// the last look if there is none.
func comparedWith(looks []Measurement, from, partition int) int {
	last := len(looks) - 1
	if !looks[last].tells(partition) {
		return last
	}
	for then := from; then >= 0; then-- {
		if looks[then].tells(partition) && looks[then].At.Before(looks[last].At) {
			return then
		}
	}
	for then := from + 1; then < last; then++ {
		if looks[then].tells(partition) && looks[then].At.Before(looks[last].At) {
			return then
		}
	}
	return last
}

// tells whether a partition's end was known.
func (m *Measurement) tells(partition int) bool {
	return partition < len(m.Partitions) && m.Partitions[partition].Produced >= 0
}

// steadySpan gives the longest span over which arrivals look like what they are
// now, and whether they were fewer before. A long one tells a constant rate from its noise, a short one sees a
// change at once: a span is too long where the count of the next shorter
// one lies more than three deviations (of a Poisson process) off its rate.
func steadySpan(looks []Measurement, counts []bool) (span time.Duration, jumped bool) {
	now := looks[len(looks)-1]
	if len(looks) < 2 {
		return 0, false
	}
	shorter := now.At.Sub(looks[len(looks)-2].At)
	recent := inflow(looks, shorter, counts)
	for _, span := range spans {
		if span <= shorter {
			continue
		}
		if now.At.Sub(looks[0].At) < span {
			break
		}
		longer := inflow(looks, span, counts)
		expected := longer * shorter.Seconds()
		if math.Abs(recent*shorter.Seconds()-expected) > 3*math.Sqrt(expected+1) {
			return shorter, recent > longer
		}
		shorter, recent = span, longer
	}
	return shorter, false
}
