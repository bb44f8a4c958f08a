package deliver

import (
	"container/heap"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// partition is one that this member owns, or had when tries of it began.
type partition struct {
	number int32
	// tenure is the time in which this member has it, for its commits.
	tenure   uint64
	progress progress
	// seen are the streams whose record is done.
	seen *window
	// tries is the context of all its tries, which cancel ends.
	tries  context.Context
	cancel context.CancelCauseFunc
	// next is the first offset that was not read, known the first of which the
	// committed progress said nothing.
	next, known int64
	lanes       map[string]*lane
	// ready are the lanes whose first record may be tried, retries those of which
	// it was tried before.
	ready, retries lanes
	// inTurns says that it is among the queue's turns.
	inTurns bool
	// bytes is the size of the records held, running the number of tries, those
	// included whose handler has returned.
	bytes   int64
	running int
	// idle is closed when no try runs any more; nil while nobody waits for that.
	idle chan struct{}
	// changed says that there is something to commit, committing that a commit of it
	// is on its way.
	changed, committing bool
	// claimed says that a commit of this run's for the partition has been
	// acknowledged, claiming that one is wanted.
	claimed, claiming bool
	// suspect says that the membership was interrupted, and another member may
	// have had the partition meanwhile.
	suspect bool
	// skipped is how many commits were made meanwhile, without it.
	skipped int
	// stopped says that no new try begins, since the partition is being given up,
	// gone that it is not this member's any more.
	stopped, gone bool
	// handed says that tries of it were handed over.
	handed bool
}

// lane holds the records of a key that are not done, in order.
type lane struct {
	partition *partition
	key       string
	jobs      []*job
	// timer ends the pause of a parked lane.
	timer *time.Timer
}

// job is a record to be tried.
type job struct {
	lane   *lane
	record broker.Record
	// id is the stream id; "" where nobody waits.
	id   string
	size int64
	// past is what is known of the tries before the one that runs.
	past past
	// running says that a try is under way, placed that its handler has not
	// returned yet, aside that it holds up no other.
	running, placed, aside bool
	// retry says that the try that runs is not the record's first, heard that its
	// upstream has sent something. patience ends when that takes too long, and
	// displaced is when another try got the place for that; zero if none has.
	retry     bool
	heard     atomic.Bool
	patience  *time.Timer
	displaced time.Time
	// again says that another record of the same stream is done already.
	again bool
	// handed says that the partition went to another owner while the try was under
	// way. Its outcome is told on the control topic, as that of the try handedAs of
	// the run handedBy.
	handed   bool
	handedAs int
	handedBy run
	// void says that the log was cut off below the record: the try counts for nothing.
	void bool
	// letter is not nil when the record is given up, and has still to be buried.
	letter *letter
}

// size gives the bytes of a record.
func size(r broker.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}

func (j *job) partition() *partition { return j.lane.partition }

// first is the offset of the record that is next.
func (l *lane) first() int64 { return l.jobs[0].record.Offset }

// pass marks as done what lies before an offset and was not in the log.
func (p *partition) pass(to int64) {
	if to > p.next {
		p.progress.finish(p.next, to)
		p.changed = true
	}
}

// cutOff takes note that what was read from an offset on is not there any more.
// Other records may come at those offsets, so it is read again from there. It
// returns the size of the records that are dropped.
func (p *partition) cutOff(at int64) (bytes int64) {
	for key, l := range p.lanes {
		kept := l.jobs[:0]
		for i, j := range l.jobs {
			switch {
			case j.record.Offset < at:
			case i == 0 && j.running:
				j.void = true
			default:
				bytes += j.size
				continue
			}
			kept = append(kept, j)
		}
		clear(l.jobs[len(kept):])
		if l.jobs = kept; len(kept) > 0 {
			continue
		}
		l.stop()
		delete(p.lanes, key)
		p.forget(l)
	}
	p.bytes -= bytes
	p.progress.cut(at)
	p.next, p.known = min(p.next, at), min(p.known, at)
	p.changed = true
	return bytes
}

// forget takes a lane from those that wait to be tried.
func (p *partition) forget(l *lane) {
	for _, waiting := range []*lanes{&p.ready, &p.retries} {
		if i := slices.Index(*waiting, l); i >= 0 {
			heap.Remove(waiting, i)
		}
	}
}

// laneAt gives the lane whose first record is at an offset, nil if that was not
// read yet.
func (p *partition) laneAt(offset int64) *lane {
	for _, l := range p.lanes {
		if l.first() == offset {
			return l
		}
	}
	return nil
}

// stop ends a lane's pause.
func (l *lane) stop() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// counts reports whether a job's try still counts for the partition's progress.
func (p *partition) counts(j *job) bool { return !p.gone && !j.handed && !j.void }

// roomToRead reports whether the progress will still fit into a commit when what
// runs has been tried and another hole is passed. It tells of what was read before
// already, by this member or another, and that takes no more room.
func (p *partition) roomToRead() bool {
	return p.next < p.known || p.progress.fits(p.running+1, p.next)
}

// retryRoom is how many tries of records that were tried before have room in the
// progress beyond what those have that are tried first. Without it an upstream
// that was down for a while would be asked for one record at a time.
const retryRoom = 64

// room reports whether the progress will still fit into a commit when one more
// record has been tried. The first that is not done always has room.
func (p *partition) room(j *job) bool {
	if j.record.Offset == p.progress.base {
		return true
	}
	tries := p.running + 1
	if !p.progress.past(j.record.Offset).tried() {
		tries += retryRoom
	}
	return p.progress.fits(tries, p.next)
}
