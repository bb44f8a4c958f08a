package deliver

import (
	"maps"
	"slices"
	"sort"
	"time"
)

// Bounds of what a commit carries. Kafka refuses metadata of more than 4,096
// bytes (offset.metadata.max.bytes), and other brokers take anything, so the
// bound is kept here.
const (
	maxMetadata = 3500
	// maxAhead is how far behind the first record that is not done reading goes.
	maxAhead = 16_000
)

// progress is what of a partition is done, and what is known of the tries of
// records that are not done. Committed with the offset, as its metadata, it
// survives restarts and rebalances: neither is finished work repeated, nor a
// record tried for ever because nobody remembers how often it was.
type progress struct {
	// incarnation is that of the topic that the offsets belong to.
	incarnation uint32
	// owner is the run that committed it, zero if none says so.
	owner run
	// base is the first offset that is not done. It is what is committed.
	base int64
	// done are the offsets after base that are done: in order, with offsets
	// that are not done between any two and before the first.
	done []span
	// tries holds what is known of records that are not done.
	tries map[int64]past
	// size is the length of the encoded progress without its details, 0 when it
	// has changed since.
	size int
}

// span is a range of offsets, to excluded.
type span struct{ from, to int64 }

// past is what is known of the tries of a record.
type past struct {
	// failed is how many there were in vain.
	failed int
	// cuts is how many were cut short because their process ended, or lost the
	// partition, in the middle.
	cuts int
	// started reports that an answer to it is on its way in parts. Whoever finds
	// that in a commit finds half an answer, unless a run has the try.
	started bool
	// givenUp reports that it is not to be tried again. Whoever finds that does
	// what is left to do.
	givenUp bool
	// running reports that the owner's own try is under way. Whoever finds that in
	// a commit took over from a process that died, or was cut off, in the middle.
	running bool
	// by is the run that has the try under way although it gave the partition up,
	// zero for none.
	by run
	// due is when it may be tried again, in Unix seconds; 0 for at once.
	due int64
	// code and reason are why the last try failed.
	code   int
	reason string
}

// number is that of the next try, or of the one that is under way, from 1.
func (p past) number() int { return p.failed + p.cuts + 1 }

// tried reports whether a try has ended without an answer.
func (p past) tried() bool { return p.failed+p.cuts > 0 }

// pause is how long to wait until the record may be tried.
func (p past) pause(now time.Time) time.Duration {
	if p.due == 0 {
		return 0
	}
	// The clock may be another gateway's.
	return min(time.Unix(p.due, 0).Sub(now), maxRetryAfter)
}

const (
	// maxFailed is the highest count of failed tries.
	maxFailed = 1<<20 - 1
	// maxCuts is how many tries of a record may be cut short. After that it is
	// given up as one that ends its process.
	maxCuts = 3
)

// isDone reports whether the record at an offset need not be tried.
func (p *progress) isDone(offset int64) bool {
	if offset < p.base {
		return true
	}
	i := p.after(offset)
	return i > 0 && offset < p.done[i-1].to
}

// end gives the first offset, from base on, of which nothing is known.
func (p *progress) end() int64 {
	end := p.base + 1
	if n := len(p.done); n > 0 {
		end = p.done[n-1].to
	}
	for offset := range p.tries {
		end = max(end, offset+1)
	}
	return end
}

// after gives the index of the first range that begins after an offset.
func (p *progress) after(offset int64) int {
	return sort.Search(len(p.done), func(i int) bool { return p.done[i].from > offset })
}

// finish marks a range of offsets as done, the last excluded: a record, or a
// hole that compaction or a transaction has left.
func (p *progress) finish(from, to int64) {
	from = max(from, p.base)
	if from >= to {
		return
	}
	p.size = 0
	if to == from+1 {
		delete(p.tries, from)
	} else {
		maps.DeleteFunc(p.tries, func(offset int64, _ past) bool { return offset >= from && offset < to })
	}
	first := p.after(from)
	if first > 0 && p.done[first-1].to >= from {
		first--
		from = p.done[first].from
	}
	last := first
	for last < len(p.done) && p.done[last].from <= to {
		to = max(to, p.done[last].to)
		last++
	}
	p.done = slices.Replace(p.done, first, last, span{from, to})
	if p.done[0].from == p.base {
		p.base = p.done[0].to
		p.done = slices.Delete(p.done, 0, 1)
	}
}

// cut forgets everything from an offset on.
func (p *progress) cut(from int64) {
	p.size = 0
	p.base = min(p.base, from)
	maps.DeleteFunc(p.tries, func(offset int64, _ past) bool { return offset >= from })
	for i := len(p.done) - 1; i >= 0 && p.done[i].to > from; i-- {
		if p.done[i].to = from; p.done[i].from >= from {
			p.done = p.done[:i]
		}
	}
}

// note changes what is known of a record.
func (p *progress) note(offset int64, change func(*past)) past {
	e := p.tries[offset]
	change(&e)
	p.set(offset, e)
	return e
}

// set replaces what is known of a record.
func (p *progress) set(offset int64, e past) {
	p.size = 0
	if e == (past{}) {
		delete(p.tries, offset)
		return
	}
	if p.tries == nil {
		p.tries = make(map[int64]past)
	}
	p.tries[offset] = e
}

// fail counts a failed try, and returns how many there were.
func (p *progress) fail(offset int64) int {
	return p.note(offset, (*past).fail).failed
}

// fail counts a failed try. The marks of the try go with it.
func (p *past) fail() {
	p.failed = min(p.failed+1, maxFailed)
	p.started, p.givenUp, p.running, p.by, p.due = false, false, false, run{}, 0
}

// cutShort counts a try whose process ended in the middle.
func (p *past) cutShort() {
	p.running, p.by = false, run{}
	if p.givenUp {
		return // nothing was tried: it was about to be buried
	}
	p.cuts = min(p.cuts+1, maxCuts)
}

// start notes that the answer to a record has begun to go out.
func (p *progress) start(offset int64) { p.note(offset, func(e *past) { e.started = true }) }

// giveUp notes that a record is not to be tried again.
func (p *progress) giveUp(offset int64) { p.note(offset, func(e *past) { e.givenUp = true }) }

func (p progress) past(offset int64) past { return p.tries[offset] }
