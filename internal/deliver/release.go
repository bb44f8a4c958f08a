package deliver

import (
	"context"
	"slices"
)

// A partition leaves the queue in one of two ways. It is released: no new try
// begins, those that run are handed over with the last commit, and it is removed.
// Or it is lost, since another member may have had it already: then its tries are
// cancelled, and count for nothing.

// stop begins no more tries of partitions, and gives how many run.
func (q *queue) stop(numbers []int32) (running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		p.stopped = true
		for _, l := range p.lanes {
			l.stop()
		}
		running += p.running
	}
	return running
}

// each gives those partitions of a list that are held. Needs the lock.
func (q *queue) each(numbers []int32) func(func(*partition) bool) {
	return func(yield func(*partition) bool) {
		for _, number := range numbers {
			if p, ok := q.partitions[number]; ok && !yield(p) {
				return
			}
		}
	}
}

// handOver marks the tries of stopped partitions as under way in this run, for the
// next owner to wait for, and gives how many there are.
func (q *queue) handOver(numbers []int32) (handed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		p.changed = true
		for _, l := range p.lanes {
			j := l.jobs[0]
			if !j.running || j.void {
				continue
			}
			j.past = p.progress.note(j.record.Offset, func(e *past) { e.running = false })
			j.handed, j.handedAs, j.handedBy = true, j.past.number(), q.run
			p.progress.note(j.record.Offset, func(e *past) { e.by = q.run })
			p.handed = true
			handed++
		}
	}
	return handed
}

// cancel ends the tries of partitions.
func (q *queue) cancel(numbers []int32, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		p.cancel(cause)
	}
}

// awaitIdle waits until no try of stopped partitions runs, and reports whether
// that was before ctx ended.
func (q *queue) awaitIdle(ctx context.Context, numbers []int32) bool {
	q.mu.Lock()
	var idle []<-chan struct{}
	for p := range q.each(numbers) {
		idle = append(idle, p.whenIdle())
	}
	q.mu.Unlock()
	return awaitAll(ctx, idle)
}

// awaitLeft waits until no try runs of a partition that is not held any more, and
// reports whether that was before ctx ended.
func (q *queue) awaitLeft(ctx context.Context) bool {
	q.mu.Lock()
	var idle []<-chan struct{}
	for p := range q.leaving {
		idle = append(idle, p.whenIdle())
	}
	q.mu.Unlock()
	return awaitAll(ctx, idle)
}

// whenIdle gives a channel that is closed when no try of the partition runs. Needs
// the queue's lock.
func (p *partition) whenIdle() <-chan struct{} {
	if p.idle != nil {
		return p.idle
	}
	idle := make(chan struct{})
	if p.running == 0 {
		close(idle)
	} else {
		p.idle = idle
	}
	return idle
}

func awaitAll(ctx context.Context, all []<-chan struct{}) bool {
	for _, c := range all {
		select {
		case <-c:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// uncommitted gives one of the partitions that has something to commit, or of which
// a commit was not answered yet, nil if there is none.
func (q *queue) uncommitted(numbers []int32) *partition {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		if p.changed || p.committing {
			return p
		}
	}
	return nil
}

// remove forgets partitions.
func (q *queue) remove(numbers []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		q.gone(p)
	}
	q.dispatch()
}

// drop forgets partitions, and ends their tries.
func (q *queue) drop(numbers []int32, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		q.gone(p)
		p.cancel(cause)
	}
	q.dispatch()
}

// cancelHanded ends the tries that were handed over.
func (q *queue) cancelHanded(cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.leaving {
		p.cancel(cause)
	}
	for _, p := range q.partitions {
		if p.handed { // and its last commit is on its way
			p.cancel(cause)
		}
	}
}

// gone takes a partition out. Its tries that run keep it, and their places. Needs
// the lock.
func (q *queue) gone(p *partition) {
	if p.running > 0 {
		q.leaving[p] = struct{}{}
	}
	p.stopped, p.gone = true, true
	for _, l := range p.lanes {
		l.stop()
	}
	q.bytes -= p.bytes
	q.turns = slices.DeleteFunc(q.turns, func(other *partition) bool { return other == p })
	delete(q.partitions, p.number)
}

// dropSuspects drops those partitions of which it is not known whether another
// member has had them.
func (q *queue) dropSuspects(numbers []int32, cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		if p.suspect {
			q.gone(p)
			p.cancel(cause)
		}
	}
}

// interrupt has partitions wait: the membership was interrupted, and another
// member may have had them meanwhile.
func (q *queue) interrupt(numbers []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.each(numbers) {
		p.suspect = true
	}
}

// resume goes on with a partition that nobody else has had.
func (q *queue) resume(tenure uint64, number int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p, ok := q.partitions[number]; ok {
		p.suspect, p.tenure = false, tenure
		q.turn(p)
		q.dispatch()
		q.changed()
	}
}

// has reports whether a partition is held.
func (q *queue) has(number int32) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.partitions[number]
	return ok
}

// owner is the run that commits.
func (q *queue) owner() run {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.run
}

// owned lists the partitions held.
func (q *queue) owned() []int32 {
	q.mu.Lock()
	defer q.mu.Unlock()
	var numbers []int32
	for number := range q.partitions {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return numbers
}

// standingOf is how a try stands to its partition.
type standingOf uint8

const (
	// held: the partition is this member's as long as its membership holds.
	held standingOf = iota
	// handed: the partition is another's, and the try was handed over.
	handed
	// unsure: it is not known whether the partition is another's.
	unsure
	// lost: the partition is another's.
	lost
)

// skipped gives how many commits were made without what had changed of a partition.
func (q *queue) skipped(p *partition) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return p.skipped
}

// rename has commits and tries be of another run from now on.
func (q *queue) rename(now run) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.run = now
	for _, p := range q.partitions {
		p.progress.owner, p.progress.size, p.changed = now, 0, true
	}
}

// standing tells how a try stands.
func (q *queue) standing(j *job) standingOf {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch p := j.partition(); {
	case j.handed:
		return handed
	case p.gone:
		return lost
	case p.suspect:
		return unsure
	}
	return held
}

// foreign gives the runs that have tries of this member's partitions.
func (q *queue) foreign() []run {
	q.mu.Lock()
	defer q.mu.Unlock()
	var runs []run
	for _, p := range q.partitions {
		if p.stopped {
			continue
		}
		for _, e := range p.progress.tries {
			if e.by != (run{}) && !slices.Contains(runs, e.by) {
				runs = append(runs, e.by)
			}
		}
	}
	return runs
}

// settle takes note of how a try has ended, or that its answer has begun to go
// out, that another run had. It reports whether it had it.
func (q *queue) settle(number int32, o outcome) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	p, ok := q.partitions[number]
	if !ok || p.stopped || p.progress.incarnation != o.life {
		return false
	}
	e, ok := p.progress.tries[o.offset]
	if !ok || e.by != o.by || e.number() != o.try {
		return false
	}
	p.changed = true
	switch {
	case o.state == outcomeStarted:
		p.progress.start(o.offset)
	case o.state == outcomeDone:
		p.progress.finish(o.offset, o.offset+1)
		p.seen.add(o.id)
		if l := p.laneAt(o.offset); l != nil {
			q.pop(l)
			if len(l.jobs) > 0 {
				q.enqueue(l)
			}
		}
	default:
		e = o.past
		e.running, e.by = false, run{}
		p.progress.set(o.offset, e)
		if l := p.laneAt(o.offset); l != nil {
			q.enqueue(l)
		}
	}
	q.dispatch()
	q.changed()
	return true
}

// died takes note that the tries of a run were cut short.
func (q *queue) died(dead run) (tries int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.partitions {
		for offset, e := range p.progress.tries {
			if e.by != dead || p.stopped {
				continue
			}
			tries++
			p.changed = true
			p.progress.note(offset, (*past).cutShort)
			if l := p.laneAt(offset); l != nil {
				q.enqueue(l)
			}
		}
	}
	q.dispatch()
	q.changed()
	return tries
}
