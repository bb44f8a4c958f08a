package deliver

import (
	"container/heap"
	"time"
)

// dispatch begins tries as long as there are free places. Needs the lock.
func (q *queue) dispatch() {
	for q.places() > 0 && len(q.turns) > 0 {
		p := q.turns[0]
		q.turns[0] = nil
		q.turns, p.inTurns = q.turns[1:], false
		if !q.claims(p) {
			continue // until it may be tried
		}
		l := p.take()
		if l == nil {
			continue // until something of it ends, or more comes
		}
		q.turn(p)
		q.running++
		p.running++
		j := l.jobs[0]
		j.past = p.progress.past(j.record.Offset)
		j.again = p.seen.has(j.id)
		j.running, j.placed = true, true
		q.begin(j)
	}
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
		q.enqueue(l)
		q.dispatch()
	})
	l.timer = timer
}

// take takes the lane that begins first in the log, nil if the progress has no
// room for its try or for any other. So what is done stays as close together as it
// can, and takes little room.
func (p *partition) take() *lane {
	from, other := &p.ready, &p.retries
	if len(*from) == 0 || len(*other) > 0 && (*other)[0].first() < (*from)[0].first() {
		from, other = other, from
	}
	for _, lanes := range []*lanes{from, other} {
		if len(*lanes) > 0 && p.room((*lanes)[0].jobs[0]) {
			return heap.Pop(lanes).(*lane)
		}
	}
	return nil
}

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

// returned takes note that a try's handler has, or that there is none to call.
func (q *queue) returned(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free(j)
	q.dispatch()
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

// free takes a try's place away, if it has one. Needs the lock.
func (q *queue) free(j *job) {
	if j.placed {
		j.placed = false
		q.running--
		q.ending++
	}
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
