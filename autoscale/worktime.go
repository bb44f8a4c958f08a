package autoscale

import (
	"slices"
	"time"
)

const (
	// workWindow is how far back the work of members is looked at. Less than
	// leastWork and leastRecords says nothing yet unless it is enoughWork: looks and
	// commits are too far apart. Before enoughWork and enoughRecords older work does not count.
	// A first guess is made from less, since without one there is nothing to tell
	// by how many workers a first burst takes.
	workWindow    = 5 * time.Minute
	firstWork     = time.Second
	firstRecords  = 20
	leastWork     = 10 * time.Second
	leastRecords  = 5
	enoughWork    = time.Minute
	enoughRecords = 100
	// slowest is how long the records of one commit may take where nobody knows how
	// long they do. Where it is known, what takes ten times as long, and a minute,
	// stands still and says nothing of the others: see Config.Stuck.
	slowest = 10 * time.Minute
)

// effort works out how long a group's members work on a record, from what they
// have done while they were busy.
//
// A member is busy from one commit to the next if at both more waited than what
// has come since the look before, for then it had not caught up, and if in between
// it cannot have caught up either: at an even pace it would have been behind the
// end at each look. What waited at a look alone says little: of a member that
// commits every five seconds, records seem to wait that it has long done.
//
// What it did in that time, in all of its partitions, is divided by the time, and
// times its concurrency that is Measurement.WorkTime: a member that has 4 records
// at work at once and does 200 a second works for 20 ms on each. The same
// concurrency in Config turns it back into what a worker can do.
//
// While no member is busy nothing new is learnt, and what was known stays. But no
// more than a member's whole time can have gone into what it did, busy or not: it
// is a bound, by which work that has become faster is noticed.
type effort struct {
	concurrency int
	stints      map[string]*stint // by member
	sums        []worked          // oldest first
	value       time.Duration

	at          time.Time
	now, before []standing
}

// standing is a partition at a look: how much of it is done, and how much will be
// when all is that is there now.
type standing struct {
	known      bool
	done, goal int64
}

// worked is what members did between two times that their assignments were told.
type worked struct {
	at    time.Time
	busy  output // while they had more to do
	whole output // in all
}

// output is the time of members, and the records they did in it.
type output struct {
	time    time.Duration
	records int64
}

func (o *output) add(p output) {
	o.time += p.time
	o.records += p.records
}

func (o output) each() time.Duration {
	return time.Duration(float64(o.time) / float64(o.records))
}

// stint is a member with the partitions that it has.
type stint struct {
	partitions []int32
	known      bool // done, and since when
	done       int64
	since      time.Time
	commit     bool // it committed then, and was not just seen
	behind     bool // it was, then
	goals      []goal
	work       worked // not told yet that the assignment still stood
}

// goal is a look between two commits.
type goal struct {
	at   time.Time
	goal int64
}

// maxGoals bounds how many looks are kept between two commits.
const maxGoals = 64

// assigned says which partitions each member has. What was done counts only if they
// were the same before it and after.
func (e *effort) assigned(owned map[string][]int32) {
	sum := worked{at: e.at}
	stints := make(map[string]*stint, len(owned))
	for member, partitions := range owned {
		slices.Sort(partitions)
		s := e.stints[member]
		if s == nil || !slices.Equal(s.partitions, partitions) {
			s = &stint{partitions: partitions}
		}
		sum.busy.add(s.work.busy)
		sum.whole.add(s.work.whole)
		s.work = worked{}
		stints[member] = s
	}
	e.stints = stints
	if sum.whole.records > 0 {
		e.sums = append(e.sums, sum)
		e.sums = slices.DeleteFunc(e.sums, func(old worked) bool { return e.at.Sub(old.at) > workWindow })
		e.value = e.estimate()
	}
}

// estimate gives the work time, or what it was.
func (e *effort) estimate() time.Duration {
	value := e.value
	var busy, whole output
	for _, sum := range slices.Backward(e.sums) {
		if busy.time < enoughWork || busy.records < enoughRecords {
			busy.add(sum.busy)
		}
		if whole.time < enoughWork || whole.records < enoughRecords {
			whole.add(sum.whole)
		}
	}
	switch {
	case busy.records > 0 && (busy.time >= enoughWork || busy.time >= leastWork && busy.records >= leastRecords),
		value == 0 && busy.time >= firstWork && busy.records >= firstRecords:
		value = time.Duration(e.concurrency) * busy.each()
	}
	if whole.time >= enoughWork && whole.records >= enoughRecords {
		value = min(value, time.Duration(e.concurrency)*whole.each())
	}
	return value
}

// workTime gives how long a worker works on a record, 0 if it was never known.
func (e *effort) workTime() time.Duration { return e.value }

// begin begins a look, partition adds the next partition to it, and end ends it.
func (e *effort) begin(at time.Time) {
	e.at = at
	e.now, e.before = e.before[:0], e.now
}

func (e *effort) partition(backlog, done int64) {
	e.now = append(e.now, standing{backlog >= 0, done, done + backlog})
}

func (e *effort) end() {
	for _, s := range e.stints {
		e.follow(s)
	}
}

// follow sees how far a member has come at a look.
func (e *effort) follow(s *stint) {
	var done, missed, goals int64 // missed: what was there at the look before, and is not done
	for _, number := range s.partitions {
		i := int(number)
		if i < 0 || i >= len(e.now) || i >= len(e.before) || !e.now[i].known || !e.before[i].known {
			s.known = false
			return
		}
		done += e.now[i].done
		goals += e.now[i].goal
		missed += max(0, e.before[i].goal-e.now[i].done)
	}
	if s.known && done == s.done {
		if len(s.goals) == maxGoals {
			s.goals = slices.Delete(s.goals, 0, 1)
		}
		s.goals = append(s.goals, goal{e.at, goals})
		return
	}
	behind := missed >= int64(e.concurrency)
	if s.known {
		did := output{e.at.Sub(s.since), done - s.done}
		limit := slowest
		if e.value > 0 {
			limit = max(time.Minute, 10*e.value)
		}
		if did.time <= limit {
			s.work.whole.add(did)
			if s.commit && s.behind && behind && s.ranBehind(did) {
				s.work.busy.add(did)
			}
		}
	}
	s.known, s.commit, s.done, s.since, s.behind = true, s.known, done, e.at, behind
	s.goals = s.goals[:0]
}

// ranBehind tells whether a member that did so much at an even pace was behind the
// end at each look.
func (s *stint) ranBehind(did output) bool {
	for _, g := range s.goals {
		part := float64(g.at.Sub(s.since)) / float64(did.time)
		if float64(s.done)+part*float64(did.records) >= float64(g.goal) {
			return false
		}
	}
	return true
}
