package deliver

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// queue decides which record is tried next. It holds what was read of the
// partitions of this member and is not done.
//
// Records of one key stand in a lane and are tried one after the other; lanes
// run side by side, whichever partition they are of, up to the concurrency. A
// lane whose first record failed is parked until it may be tried again, so that
// a slow or poisoned key delays itself and no other.
//
// A try has its place until its handler returns. Its answer is then on its way to
// the broker, or the commit that counts it, and the lane waits for that, but
// another lane has the place: a site that can do so much at once is asked for so
// much. There may be as many of those as there are places, so that answers that
// nobody takes hold up the tries in the end, and do not pile up.
//
// Requests whose upstream hangs, and those that fail again and again, leave places
// to others: see next and silent.go.
//
// Partitions take turns, so that none of them waits for another's backlog. Within
// one the lane that begins first in the log is next.
type queue struct {
	// run is who commits.
	run run
	// begin starts a try on a goroutine of its own. It is called with the lock held.
	begin func(*job)
	// changed is called when there may be room for more records, or something to
	// commit.
	changed func()
	// claim is called when a partition needs a commit before its first try; nil
	// where none does.
	claim func()
	// patience is asked how long an upstream may send nothing.
	patience func() time.Duration
	// ended is told how a try has ended whose partition went to another owner. It
	// is called without the lock, by the try's goroutine.
	ended func(j *job, done bool)

	mu         sync.Mutex
	partitions map[int32]*partition
	// turns are the partitions that have lanes to try and may have room for them in
	// their progress; the first is next.
	turns       []*partition
	concurrency int
	// maxBytes bounds the records held. Half of it is shared out evenly among the
	// partitions, the other half is whoever's needs it: a key that is stuck with
	// large records behind it holds up its partition no sooner than it must.
	maxBytes int64
	bytes    int64 // of the records held, for all partitions together
	// leaving are the partitions that are not held any more, with tries that run.
	leaving map[*partition]struct{}
	running int // tries that have a place
	ending  int // tries that have none any more, since their handler has returned
	apart   int // tries that hold up no other
	// retrying counts the tries with a place of records that were tried before, and
	// retried says that the last one to begin was of such a record.
	retrying int
	retried  bool
	// silent are the tries with a place whose upstream has sent nothing for long, the
	// longest first, and displaced counts those that lost their place for that.
	silent    []*job
	displaced int
}

func newQueue(concurrency int, maxBytes int64, begin func(*job), changed func()) *queue {
	return &queue{
		begin: begin, changed: changed, ended: func(*job, bool) {},
		patience:    func() time.Duration { return silentAfter },
		partitions:  make(map[int32]*partition),
		leaving:     make(map[*partition]struct{}),
		concurrency: concurrency, maxBytes: maxBytes,
	}
}

// assign adds a partition, read from where its progress stands. It says whether
// that is not what was committed.
func (q *queue) assign(number int32, p progress, seen *window, changed bool) {
	q.assignIn(0, number, p, seen, changed)
}

// assignIn is assign with the tenure in which the member has the partition.
func (q *queue) assignIn(tenure uint64, number int32, p progress, seen *window, changed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	added := &partition{
		number: number, tenure: tenure, progress: p, seen: seen, changed: changed,
		next: p.base, known: p.end(), lanes: make(map[string]*lane),
	}
	added.progress.owner = q.run
	added.tries, added.cancel = context.WithCancelCause(context.Background())
	q.partitions[number] = added
	if changed {
		q.changed()
	}
}

// recordOverhead is what a record costs in memory besides its bytes, roughly.
const recordOverhead = 512

// put takes what was read of a partition: the records at and after the offset
// that wanted gave, and the offset to go on with. What is missing in between
// (transaction markers, what compaction took) is done.
func (q *queue) put(number int32, records []broker.Record, next int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p, ok := q.partitions[number]
	if !ok || p.stopped {
		return
	}
	for _, r := range records {
		if r.Offset < p.next {
			continue
		}
		if r.Offset > p.next && !p.roomToRead() {
			// Where each record is a transaction, there is a hole after each. The
			// rest is read again when some of them are closed.
			q.turn(p)
			q.dispatch()
			return
		}
		p.pass(r.Offset)
		p.next = r.Offset + 1
		if p.progress.isDone(r.Offset) {
			id, _ := record.CorrelationID(r.Headers)
			p.seen.add(id)
			continue
		}
		q.enter(p, r)
	}
	if next > p.next {
		p.pass(next)
		p.next = next
	}
	q.turn(p)
	q.dispatch()
}

// enter puts a record at the end of its lane. Without a key it has one of its
// own, unless the same stream's record is there already: two of the same must
// not run side by side, or neither would know that the other is done.
func (q *queue) enter(p *partition, r broker.Record) {
	id, _ := record.CorrelationID(r.Headers)
	var key string
	switch {
	case r.Key != nil:
		key = "key " + string(r.Key)
	case id != "":
		key = "id " + id
	default:
		key = "at " + strconv.FormatInt(r.Offset, 10)
	}
	l := p.lanes[key]
	if l == nil {
		l = &lane{partition: p, key: key}
		p.lanes[key] = l
	}
	j := &job{lane: l, record: r, id: id, size: recordOverhead + size(r)}
	p.bytes += j.size
	q.bytes += j.size
	l.jobs = append(l.jobs, j)
	if len(l.jobs) == 1 {
		q.enqueue(l)
	}
}

// wanted gives the offset to read a partition from, false while there is enough
// of it in memory.
func (q *queue) wanted(number int32) (int64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p, ok := q.partitions[number]
	if !ok || p.stopped || p.suspect {
		return 0, false
	}
	room := q.bytes < (q.maxBytes+1)/2 || p.bytes < q.maxBytes/2/int64(len(q.partitions))
	return p.next, room && p.next-p.progress.base < maxAhead && p.roomToRead()
}

// done ends a try after which the record need not be tried again.
func (q *queue) done(j *job) {
	q.mu.Lock()
	l, p := j.lane, j.partition()
	handed := j.handed
	if p.counts(j) {
		p.progress.finish(j.record.Offset, j.record.Offset+1)
		p.seen.add(j.id)
	}
	if !p.gone {
		q.pop(l)
		if len(l.jobs) > 0 {
			q.enqueue(l)
		}
	}
	q.ran(j)
	q.mu.Unlock()
	if handed {
		q.ended(j, true)
	}
}

// pop takes the first record out of its lane. Needs the lock.
func (q *queue) pop(l *lane) {
	p, j := l.partition, l.jobs[0]
	p.bytes -= j.size
	q.bytes -= j.size
	l.jobs[0] = nil
	if l.jobs = l.jobs[1:]; len(l.jobs) == 0 {
		delete(p.lanes, l.key)
	}
}

// note changes what is known of the record of a try. A try that was handed over
// keeps that to itself until it ends. Needs the lock.
func (q *queue) note(j *job, change func(*past)) past {
	p := j.partition()
	if !p.counts(j) {
		change(&j.past)
		return j.past
	}
	p.changed = true
	return p.progress.note(j.record.Offset, change)
}

// failed counts a failed try, and asks how long to wait before the next one, and
// whether there is to be none. All of that is committed together. The record keeps
// its place in the lane, and the try its place among those that run.
func (q *queue) failed(j *job, why cause, next func(tries int) (pause time.Duration, last bool)) (tries int, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.note(j, func(e *past) {
		e.fail()
		e.code, e.reason = why.code, why.reason
		var pause time.Duration
		if pause, last = next(e.failed); last {
			e.givenUp = true
		} else if pause > 0 {
			e.due = time.Now().Add(pause + time.Second - 1).Unix() // not before
		}
	})
	return e.failed, last
}

// cutShort notes a try that this process ends, and not the upstream. One that ends in
// an orderly way says nothing against the request, so it does not count; but one
// whose answer has begun does, since the next one's parts need another number.
func (q *queue) cutShort(j *job, orderly bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.note(j, func(e *past) {
		if orderly && !e.started {
			e.running, e.by = false, run{}
			return
		}
		e.cutShort()
	})
}

// goesOn notes that a try has been running for reportAfter. Whoever takes over from
// a process that died finds the mark, and counts a try that was cut short.
func (q *queue) goesOn(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watch(j)
	if j.running && j.partition().counts(j) {
		q.note(j, func(e *past) { e.running = true })
		q.changed()
	}
}

// started notes that the answer to a record begins to go out, and reports whether
// the try was handed over.
func (q *queue) started(j *job) (handed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.note(j, func(e *past) { e.started, e.running = true, true })
	return j.handed
}

// park ends a try that is to be repeated after a pause.
func (q *queue) park(j *job, pause time.Duration) {
	q.mu.Lock()
	l, p := j.lane, j.partition()
	handed := j.handed
	if p.counts(j) {
		p.progress.note(j.record.Offset, func(e *past) { e.running = false })
	}
	switch {
	case p.gone, p.stopped:
	case j.void: // other records are at its offset now
		q.pop(l)
		if len(l.jobs) > 0 {
			q.enqueue(l)
		}
	default:
		q.wait(l, pause)
	}
	q.ran(j)
	q.mu.Unlock()
	if handed {
		q.ended(j, false)
	}
}

// unpark ends the pause of a request that was called off: it is done, and its
// key need not wait for it.
func (q *queue) unpark(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.partitions {
		for _, l := range p.lanes {
			if l.timer != nil && l.jobs[0].id == id {
				l.stop()
				p.progress.note(l.first(), func(e *past) { e.due = 0 })
				q.enqueue(l)
			}
		}
	}
	q.dispatch()
}

// move takes note that the log holds nothing where a partition was to be read:
// it begins later, or ends earlier.
func (q *queue) move(number int32, first, last int64) (behind, beyond bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p, ok := q.partitions[number]
	switch {
	case !ok:
	case p.next < first:
		p.pass(first)
		p.next, behind = first, true
	case p.next > last:
		q.bytes -= p.cutOff(last)
		beyond = true
		q.changed()
	}
	return behind, beyond
}

// cut takes note that the log was cut off somewhere and written anew.
func (q *queue) cut(number int32, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p, ok := q.partitions[number]; ok {
		q.bytes -= p.cutOff(at)
		q.changed()
	}
}

// standing is what is to be committed of a partition.
type standing struct {
	partition int32
	offset    int64
	metadata  string
	tenure    uint64
	of        *partition
}

// changes gives what has changed since the last call. Of a partition that another
// member may have had it gives nothing.
func (q *queue) changes() []standing {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []standing
	for _, p := range q.partitions {
		switch {
		case !p.changed:
		case p.suspect:
			p.skipped++
		default:
			p.changed, p.committing = false, true
			all = append(all, standing{p.number, p.progress.base, p.progress.encode(), p.tenure, p})
		}
	}
	return all
}

// unchanged takes back what changes gave and could not be committed.
func (q *queue) unchanged(all []standing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range all {
		s.of.changed, s.of.committing = true, false
	}
}

// committed takes note that the broker has what changes gave.
func (q *queue) committed(all []standing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range all {
		s.of.committing = false
		if !s.of.claimed {
			s.of.claiming, s.of.claimed = false, true
			q.turn(s.of)
		}
	}
	q.dispatch()
}
