package deliver

import (
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// partition is one that the generation was assigned.
type partition struct {
	number   int32
	progress progress
	// seen are the streams whose record is done.
	seen *window
	// next is the first offset that was not read, known the first of which the
	// committed progress said nothing.
	next, known int64
	// cut is where the log ended when brokers had lost its end; what was read
	// beyond it counts for nothing that comes there now.
	cut   int64
	lanes map[string]*lane
	// ready are the lanes whose first record may be tried, retries those of which
	// it was tried before.
	ready, retries lanes
	// inTurns says that it is among the queue's turns.
	inTurns bool
	// bytes is the size of the records held, running the number of tries, those
	// included whose handler has returned.
	bytes   int64
	running int
	// changed says that there is something to commit.
	changed bool
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
	// again says that another record of the same stream is done already.
	again bool
	// letter is not nil when the record is given up, and has still to be buried.
	letter *letter
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
func (p *partition) cutOff(at int64) {
	p.cut = min(p.cut, at)
	p.progress.cut(at)
	p.changed = true
}

// roomToRead tells whether the progress will still fit into a commit when what
// runs has been tried and another hole is passed. It tells of what was read before
// already, by this member or another, and that takes no more room.
func (p *partition) roomToRead() bool {
	return p.next < p.known || p.progress.fits(p.running+1, p.next)
}

// retryRoom is how many tries of records that were tried before have room in the
// progress beyond what those have that are tried first. Without it an upstream
// that was down for a while would be asked for one record at a time.
const retryRoom = 64

// room tells whether the progress will still fit into a commit when one more
// record has been tried. The first that is not done always has room.
func (p *partition) room(j *job) bool {
	if j.record.Offset == p.progress.base {
		return true
	}
	tries := p.running + 1
	if p.progress.tries[j.record.Offset] == 0 {
		tries += retryRoom
	}
	return p.progress.fits(tries, p.next)
}
