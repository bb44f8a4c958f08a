package deliver

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// queue decides which record is tried next. It holds what was read of the
// partitions of one generation and is not done.
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
// Partitions take turns, so that none of them waits for another's backlog. Within
// one the lane that begins first in the log is next.
type queue struct {
	// begin starts a try on a goroutine of its own. It is called with the lock held.
	begin func(*job)
	// changed is called when there may be room for more records.
	changed func()

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
	running  int   // tries that have a place
	ending   int   // tries that have none any more
	apart    int   // tries that hold up no other
	ended    bool
	closed   bool
	// idle is closed when nothing runs any more after the end.
	idle chan struct{}
}

func newQueue(concurrency int, maxBytes int64, begin func(*job), changed func()) *queue {
	return &queue{
		begin: begin, changed: changed,
		partitions:  make(map[int32]*partition),
		concurrency: concurrency, maxBytes: maxBytes,
		idle: make(chan struct{}),
	}
}

// assign adds a partition, read from where its progress stands. It says whether
// that is not what was committed.
func (q *queue) assign(number int32, p progress, seen *window, changed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.partitions[number] = &partition{
		number: number, progress: p, seen: seen, changed: changed,
		next: p.base, known: p.end(), cut: math.MaxInt64, lanes: make(map[string]*lane),
	}
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
	if !ok || q.ended {
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
	j := &job{lane: l, record: r, id: id, size: recordOverhead + int64(len(r.Key)+len(r.Value))}
	for _, h := range r.Headers {
		j.size += int64(len(h.Key) + len(h.Value))
	}
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
	if !ok || q.ended {
		return 0, false
	}
	room := q.bytes < (q.maxBytes+1)/2 || p.bytes < q.maxBytes/2/int64(len(q.partitions))
	return p.next, room && p.next-p.progress.base < maxAhead && p.roomToRead()
}

// done ends a try after which the record need not be tried again.
func (q *queue) done(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l, p := j.lane, j.partition()
	if q.closed {
		return
	}
	if j.record.Offset < p.cut {
		p.progress.finish(j.record.Offset, j.record.Offset+1)
	}
	p.bytes -= j.size
	q.bytes -= j.size
	l.jobs[0] = nil
	l.jobs = l.jobs[1:]
	if len(l.jobs) > 0 {
		q.enqueue(l)
	} else {
		delete(p.lanes, l.key)
	}
	p.seen.add(j.id)
	q.ran(j)
}

// failed counts a failed try, gives how many there were, and asks whether that is
// the end: both are committed together. The record keeps its place in the lane,
// and the try its place among those that run.
func (q *queue) failed(j *job, isLast func(tries int) bool) (tries int, last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := j.partition()
	if q.closed || j.record.Offset >= p.cut {
		return j.past.failed + 1, isLast(j.past.failed + 1)
	}
	p.changed = true
	tries = p.progress.fail(j.record.Offset)
	if last = isLast(tries); last {
		p.progress.giveUp(j.record.Offset)
	}
	return tries, last
}

// started notes that the answer to a record begins to go out.
func (q *queue) started(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := j.partition(); !q.closed && j.record.Offset < p.cut {
		p.progress.start(j.record.Offset)
		p.changed = true
	}
}

// park ends a try that is to be repeated after a pause.
func (q *queue) park(j *job, pause time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := j.lane
	if q.closed {
		return
	}
	j.running = false
	if !q.ended {
		l.timer = time.AfterFunc(pause, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			l.timer = nil
			q.enqueue(l)
			q.dispatch()
		})
	}
	q.ran(j)
}

// unpark ends the pause of a request that was called off: it is done, and its
// key need not wait for it.
func (q *queue) unpark(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.partitions {
		for _, l := range p.lanes {
			if l.timer != nil && l.jobs[0].id == id && l.timer.Stop() {
				l.timer = nil
				q.enqueue(l)
			}
		}
	}
	q.dispatch()
}

// end begins no more tries. The channel that it gives is closed when none runs.
func (q *queue) end() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return q.idle
	}
	q.ended = true
	for _, p := range q.partitions {
		for _, l := range p.lanes {
			if l.timer != nil {
				l.timer.Stop()
			}
		}
	}
	if q.underWay() == 0 {
		close(q.idle)
	}
	return q.idle
}

// close has the tries that still run count for nothing but a failure, which
// they are told to have been already, and gives how many there are.
func (q *queue) close() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.partitions {
		for _, l := range p.lanes {
			j := l.jobs[0]
			if !j.running || j.record.Offset >= p.cut {
				continue
			}
			// Who finds one of the marks does right by them; a count would take
			// them away, and half an answer would be begun again.
			if past := p.progress.past(j.record.Offset); !past.started && !past.givenUp {
				p.progress.fail(j.record.Offset)
				p.changed = true
			}
		}
	}
	q.closed = true
	return q.underWay()
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
		p.cutOff(last)
		beyond = true
	}
	return behind, beyond
}

// cut takes note that the log was cut off somewhere and written anew.
func (q *queue) cut(number int32, at int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p, ok := q.partitions[number]; ok {
		p.cutOff(at)
	}
}

// standing is what is to be committed of a partition.
type standing struct {
	partition int32
	offset    int64
	metadata  string
}

// changes gives what has changed since the last call.
func (q *queue) changes() []standing {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []standing
	for _, p := range q.partitions {
		if p.changed {
			p.changed = false
			all = append(all, standing{p.number, p.progress.base, p.progress.encode()})
		}
	}
	return all
}

// unchanged takes back what changes gave and could not be committed.
func (q *queue) unchanged(all []standing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range all {
		q.partitions[s.partition].changed = true
	}
}
