package deliver

import (
	"container/heap"
	"slices"
	"time"
)

// dispatch begins tries as long as there are free places, or tries that give up
// theirs. Needs the lock.
func (q *queue) dispatch() {
	for len(q.turns) > 0 {
		var silent *job
		if q.places() <= 0 {
			if silent = q.replaceable(); silent == nil {
				return
			}
		}
		l := q.next(silent)
		if l == nil {
			return
		}
		if silent != nil {
			q.displace(silent)
		}
		q.start(l)
	}
}

// start begins a try. Needs the lock.
func (q *queue) start(l *lane) {
	p, j := l.partition, l.jobs[0]
	j.past = p.progress.past(j.record.Offset)
	j.again = p.seen.has(j.id)
	j.running, j.placed, j.retry = true, true, j.past.tried()
	j.heard.Store(false)
	q.running++
	p.running++
	if q.retried = j.retry; j.retry {
		q.retrying++
	}
	q.begin(j)
}

// next takes the lane that is tried next, nil if none may be. It gets a free place,
// or that of a silent try.
//
// Records that were tried before have at most half of the places while one waits
// that may be tried for the first time: or keys whose requests hang, again and
// again, would take all of them. With a single place the two kinds take turns. While
// nothing new waits they have the other half too, or an outage would take longer to
// recover from, less the places that are lost on silent upstreams: those could not
// be had back when something new comes. Needs the lock.
func (q *queue) next(silent *job) *lane {
	half := max(q.concurrency/2, 1)
	retrying, most := q.retrying, max(half, q.concurrency-q.hanging())
	if silent != nil && silent.retry {
		retrying--
	}
	if silent != nil && q.displaced >= half {
		most = 0 // of the tries that may lose their place, half do so for new ones
	}
	newFirst := retrying >= min(half, most) || q.concurrency == 1 && q.retried
	held := -1 // the first partition that has nothing new to try
	for i := 0; i < len(q.turns); {
		p := q.turns[i]
		if q.claims(p) {
			if l := p.take(!newFirst); l != nil {
				q.rotate(i)
				return l
			}
			if newFirst && p.mayRetry() {
				if held < 0 {
					held = i
				}
				i++
				continue
			}
		}
		// Until it may be tried, something of it ends, or more comes.
		q.turns, p.inTurns = slices.Delete(q.turns, i, i+1), false
	}
	if held < 0 || retrying >= most {
		return nil
	}
	l := q.turns[held].take(true)
	q.rotate(held)
	return l
}

// rotate has a partition that had its turn wait for the next one. Needs the lock.
func (q *queue) rotate(i int) {
	p := q.turns[i]
	q.turns, p.inTurns = slices.Delete(q.turns, i, i+1), false
	q.turn(p)
}

// claims reports whether tries of a partition may begin. The first one waits until
// a commit of this run's has been acknowledged: by that a member that was
// interrupted finds out that somebody else has had the partition. Needs the lock.
func (q *queue) claims(p *partition) bool {
	if p.gone || p.stopped || p.suspect {
		return false
	}
	if q.claim == nil || p.claimed {
		return true
	}
	if !p.claiming {
		p.claiming, p.changed = true, true
		q.claim()
	}
	return false
}

// places is how many more tries may begin. Needs the lock.
func (q *queue) places() int {
	return min(q.concurrency-q.running, 2*q.concurrency-q.running-q.ending)
}

// turn has a partition take its turn, if it has something to try. Needs the lock.
func (q *queue) turn(p *partition) {
	if !p.inTurns && len(p.ready)+len(p.retries) > 0 {
		q.turns, p.inTurns = append(q.turns, p), true
	}
}

// enqueue has a lane wait for its partition's turn, once its first record may be
// tried: not while a run has it that the partition was taken over from, nor before
// the time that was committed for the next try. Needs the lock.
func (q *queue) enqueue(l *lane) {
	p := l.partition
	e := p.progress.past(l.first())
	pause := e.pause(time.Now())
	switch {
	case e.by != (run{}), p.stopped, p.gone:
		return
	case pause > 0:
		q.wait(l, pause)
		return
	case e.tried():
		heap.Push(&p.retries, l)
	default:
		heap.Push(&p.ready, l)
	}
	q.turn(p)
}

// wait has a lane pause. Needs the lock.
func (q *queue) wait(l *lane, pause time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(pause, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if l.timer != timer {
			return // it was stopped, too late to keep this from running
		}
		l.timer = nil
		if p := l.partition; p.progress.past(l.first()).due > 0 { // it has come, though the commits know it to the second only
			p.progress.note(l.first(), func(e *past) { e.due = 0 })
		}
		q.enqueue(l)
		q.dispatch()
	})
	l.timer = timer
}

// take takes the lane that begins first in the log, nil if the progress has no
// room for its try or for any other. So what is done stays as close together as it
// can, and takes little room. Records that were tried before are passed over unless
// retries are asked for.
func (p *partition) take(retries bool) *lane {
	from, other := &p.ready, &p.retries
	switch {
	case !retries:
		other = new(lanes)
	case len(*from) == 0 || len(*other) > 0 && (*other)[0].first() < (*from)[0].first():
		from, other = other, from
	}
	for _, lanes := range []*lanes{from, other} {
		if len(*lanes) > 0 && p.room((*lanes)[0].jobs[0]) {
			return heap.Pop(lanes).(*lane)
		}
	}
	return nil
}

// mayRetry reports whether a record waits that was tried before, and the progress
// has room for its try.
func (p *partition) mayRetry() bool { return len(p.retries) > 0 && p.room(p.retries[0].jobs[0]) }

// lanes is a heap of them; the one that begins first in the log is the first.
type lanes []*lane

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (l lanes) Len() int           { return len(l) }
func (l lanes) Less(i, j int) bool { return l[i].first() < l[j].first() }
func (l lanes) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *lanes) Push(x any)        { *l = append(*l, x.(*lane)) }
func (l *lanes) Pop() any {
	last := len(*l) - 1
	x := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	return x
}

// returned takes note that a try's handler has, or that there is none to call, and
// gives the time until which the try had its place.
func (q *queue) returned(j *job) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	until := j.displaced
	if until.IsZero() {
		until = time.Now()
	}
	q.free(j)
	q.dispatch()
	return until
}

// aside has a try hold up no other one, because what it does has been tried
// before and may go on failing for as long as it likes.
func (q *queue) aside(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free(j)
	j.aside = true
	q.ending--
	q.apart++
	q.dispatch()
}

// free takes a try's place away, if it has one, since it asks its upstream for
// nothing more. Needs the lock.
func (q *queue) free(j *job) {
	switch {
	case j.placed:
		q.unplace(j)
	case !j.displaced.IsZero():
		j.displaced = time.Time{}
		q.displaced--
	default:
		return
	}
	q.ending++
}

// ran ends a try. Needs the lock.
func (q *queue) ran(j *job) {
	p := j.partition()
	p.changed = true
	p.running--
	j.running = false
	q.free(j)
	if j.aside {
		j.aside = false
		q.apart--
	} else {
		q.ending--
	}
	if p.running == 0 {
		delete(q.leaving, p)
		if p.idle != nil {
			close(p.idle)
			p.idle = nil
		}
	}
	q.turn(p)
	q.dispatch()
	q.changed()
}

// limit changes how many tries may run at once.
func (q *queue) limit(concurrency int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.concurrency = concurrency
	q.dispatch()
}
