package deliver

import (
	"slices"
	"time"
)

// silentAfter is how long the upstream of a try may send nothing before others may
// have the place. It is longer than nearly all sites take to begin an answer, and
// as long as clients and proxies usually have patience with a site; an upstream that
// hangs holds up others for that long and not for the whole of Options.Timeout.
const silentAfter = 10 * time.Second

// Requests whose upstream hangs must not have all places for as long as a try may
// take. One whose upstream has been silent for long keeps its place until another
// request wants it. Then it goes on without: there may be as many of those as there
// are places, so the site is never asked for more than twice the concurrency at
// once. It does not get the place back, whatever comes.
//
// A site whose answers all take long to begin does not hang, and to ask it for more
// than the concurrency would be wrong: so a try is silent for long only when it has
// been for twice as long as answers took lately.

// patience is how long an upstream may be silent before its try can be displaced.
func (d *Delivery) patience() time.Duration {
	usual, _ := d.silence.told()
	return max(silentAfter, 2*usual)
}

// watch has a try be displaceable when its upstream has been silent for long. It
// has been for reportAfter already. Needs the lock.
func (q *queue) watch(j *job) {
	if !j.placed || j.heard.Load() {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(q.patience()-reportAfter, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if j.patience != timer || j.heard.Load() {
			return // it is another try of the record by now, or none
		}
		q.silent = append(q.silent, j)
		q.dispatch()
	})
	j.patience = timer
}

// replaceable gives the try that is displaced next, nil if none may be now. Those of
// records that were tried before go first. Needs the lock.
func (q *queue) replaceable() *job {
	if len(q.silent) == 0 || q.displaced >= q.concurrency {
		return nil
	}
	if q.running > q.concurrency || q.running+q.ending > 2*q.concurrency {
		return nil // the place would be nobody's: there are fewer than there were, or answers wait for the broker
	}
	q.silent = slices.DeleteFunc(q.silent, func(j *job) bool { return j.heard.Load() })
	if i := slices.IndexFunc(q.silent, func(j *job) bool { return j.retry }); i >= 0 {
		return q.silent[i]
	}
	if len(q.silent) > 0 {
		return q.silent[0]
	}
	return nil
}

// displace has a try go on without a place. Needs the lock.
func (q *queue) displace(j *job) {
	q.unplace(j)
	j.displaced = time.Now()
	q.displaced++
}

// unplace takes a try's place. Needs the lock.
func (q *queue) unplace(j *job) {
	j.placed = false
	q.running--
	if j.retry {
		q.retrying--
	}
	if j.patience != nil {
		j.patience.Stop()
		j.patience = nil
	}
	q.silent = slices.DeleteFunc(q.silent, func(other *job) bool { return other == j })
}

// hanging is how many tries have a silent upstream, or had one when they lost their
// place. Needs the lock.
func (q *queue) hanging() int { return len(q.silent) + q.displaced }
