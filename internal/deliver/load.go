package deliver

import (
	"math"
	"sync"
	"time"
)

// Load is how a Delivery stands: what a scaler has to know of one worker.
type Load struct {
	// Keys is how many different keys wait or are under way among the records
	// that were read, those in a pause between two tries included: no more tries
	// than that could run at once now. A record without a key counts as one.
	Keys int
	// WorkTime is how long a try keeps its place, on average over the last minutes
	// in which there were some; 0 while no try has ended. Tries that failed count,
	// those that were cancelled do not. One that lost its place because its upstream
	// was silent counts until then: that is what others had to wait for.
	WorkTime time.Duration
	// WorkSpread is the standard deviation of that, in parts of WorkTime.
	WorkSpread float64
	// Partitions are those that this member owns, in order.
	Partitions []int32
	// Running is how many tries are under way at the upstream, those without a place
	// included.
	Running int
}

// Load tells how the delivery stands.
func (d *Delivery) Load() Load {
	var l Load
	l.WorkTime, l.WorkSpread = d.work.told()
	l.Partitions = d.queue.owned()
	l.Keys, l.Running = d.queue.load()
	return l
}

// SetConcurrency has n tries run at once, whatever Options.Concurrency says, also
// after Use. With 0 the options count again. Tries that run go on.
func (d *Delivery) SetConcurrency(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scaled = n
	d.limit()
}

// limit tells the queue how many tries may run at once. Needs the lock.
func (d *Delivery) limit() { d.queue.limit(d.concurrency()) }

// concurrency is how many tries may run at once. Needs the lock.
func (d *Delivery) concurrency() int {
	if d.scaled > 0 {
		return d.scaled
	}
	return d.options().Concurrency
}

// load gives how many lanes and how many tries there are.
func (q *queue) load() (lanes, running int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.partitions {
		lanes += len(p.lanes)
	}
	return lanes, q.running + q.displaced
}

// workMemory is how long it takes a try to lose two thirds of its weight in the
// mean.
const workMemory = 2 * time.Minute

// work is the mean duration of tries and their variance, in which a try weighs the
// less the longer ago it has ended (after West, with weights that decay). While
// none ends, both stay.
type work struct {
	mu     sync.Mutex
	last   time.Time // when the last try ended
	weight float64   // of all tries
	mean   float64   // in nanoseconds
	square float64   // the sum of the weighted squares of differences to the mean
}

// add takes note of a try that has just ended.
func (w *work) add(took time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	left := math.Exp(-float64(now.Sub(w.last)) / float64(workMemory))
	w.last = now
	w.weight = w.weight*left + 1
	off := float64(took) - w.mean
	w.mean += off / w.weight
	w.square = w.square*left + off*(float64(took)-w.mean)
}

// told gives the mean, and the standard deviation in parts of it.
func (w *work) told() (mean time.Duration, spread float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mean <= 0 {
		return 0, 0
	}
	return time.Duration(w.mean), math.Sqrt(w.square/w.weight) / w.mean
}
