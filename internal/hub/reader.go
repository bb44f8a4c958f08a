package hub

import (
	"container/list"
	"time"
)

// reader is a cursor of one stream in one partition. It stands in the window,
// where a lookup finds what comes next; or behind it, where it rides on a scan;
// or it has seen all there is and watches. A reader that watches costs nothing:
// a record of another stream does not touch it, and one of its own wakes it
// with the offset to look at, so that it need not follow the window as it moves.
type reader struct {
	partition *partition
	id        string // of the stream
	bell      *bell

	// The partition's lock guards the rest.

	state readerState
	// next is the first offset that was not looked at. While the reader watches
	// everything before the window's end was, whatever next says.
	next int64
	// tick is the hub's clock when the reader was sent to where it began.
	tick uint64
	// cut is set when the log was cut off at that offset and written anew, and the
	// reader stands above it.
	cut *int64
	// buffer holds what a scan has put aside, and buffered what that costs; place
	// is the reader's among those for whom something is.
	buffer   []*Entry
	buffered int64
	place    *list.Element
	// before and after link the readers of one stream that watch.
	before, after *reader
}

type readerState uint8

const (
	idle     readerState = iota
	watching             // in partition.watching
	riding               // a scan looks on its behalf
	waiting              // for the next scan
)

// outcome is what a look at the partition gave.
type outcome uint8

const (
	nothing outcome = iota // the reader is woken when there may be something
	found                  // an entry
	removed                // the log now begins after the reader
	beyond                 // the log is not what the reader has seen: it was cut off before it
)

func (r *reader) notify() { r.bell.ring() }

// attach enters the reader in its partition.
func (r *reader) attach() {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readers[r] = struct{}{}
}

// detach takes the reader out of its partition.
func (r *reader) detach() {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	r.leave()
	delete(p.readers, r)
	delete(p.awaiting, r)
	if len(p.readers) == 0 {
		p.left = time.Now()
	}
}

// seek sends the reader to an offset, at or after the start that ends gave it.
func (r *reader) seek(to int64) {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	r.leave()
	r.next, r.cut = to, nil
	r.tick = p.hub.tick()
}

// goBack sends the reader to an offset that it has looked at before.
func (r *reader) goBack(to int64) {
	r.partition.mu.Lock()
	defer r.partition.mu.Unlock()
	r.leave()
	r.next = to
}

// leave ends whatever the reader does. Needs the lock.
func (r *reader) leave() {
	p := r.partition
	switch r.state {
	case watching:
		if r.after != nil {
			r.after.before = r.before
		}
		switch {
		case r.before != nil:
			r.before.after = r.after
		case r.after != nil:
			p.watching[r.id] = r.after
		default:
			delete(p.watching, r.id)
		}
		r.before, r.after = nil, nil
	case riding:
		p.scan.drop(r)
	case waiting:
		delete(p.scan.waiting, r)
	}
	r.state = idle
	r.clearAside()
}

// read gives the stream's next entry. Without one the reader is woken when it
// should look again.
func (r *reader) read() (*Entry, outcome) {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.cut != nil {
		if p.log.known {
			return nil, beyond
		}
		return nil, nothing
	}
	if e, _ := r.takeAside(); e != nil {
		return e, found
	}
	if !p.log.known || p.retired {
		return nil, nothing
	}
	if r.next > max(p.window.next, p.log.high.at) {
		if p.log.high.after(r.tick) {
			return nil, beyond
		}
		p.await(r, r.tick)
	}
	if r.state == riding { // it has taken all that was put aside, and wants more
		p.runScan()
	}
	if r.state != idle {
		return nil, nothing
	}
	if r.next < p.window.start {
		if r.next < p.log.start {
			return nil, removed
		}
		p.join(r)
		return nil, nothing
	}
	e := p.window.find(r.id, r.next)
	if e != nil {
		r.next = e.Cursor.Offset + 1
		if p.window.find(r.id, r.next) != nil {
			return e, found
		}
	}
	// Watching begins now, not when the caller comes back for more: a slow
	// caller would else fall behind a window in which nothing was for it.
	r.watch()
	if e != nil {
		return e, found
	}
	return nil, nothing
}

// watch enters the reader among those to wake by a record of its stream. Needs the lock.
func (r *reader) watch() {
	p := r.partition
	r.state = watching
	r.after = p.watching[r.id]
	if r.after != nil {
		r.after.before = r
	}
	p.watching[r.id] = r
}

// standing tells up to where the reader has seen everything, and what is known
// of the log. What a scan has put aside since the last read was not seen.
func (r *reader) standing() (int64, ends) {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(r.buffer) > 0 {
		return r.buffer[0].Cursor.Offset, p.log
	}
	return r.seen(), p.log
}

// seen is standing without what a scan has put aside. Needs the lock.
func (r *reader) seen() int64 {
	if r.state == watching {
		return max(r.next, r.partition.window.next)
	}
	return r.next
}

// bounds tells where the log can be read: from the oldest offset in memory or on
// disk to the end. The end is fresh when it was asked for after tick.
func (r *reader) bounds(tick uint64) (bounds, bool) {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	return bounds{
		start: min(p.log.start, p.window.start),
		end:   max(p.log.high.at, p.window.next),
		fresh: p.log.high.after(tick),
	}, p.log.known && !p.retired
}

// await has the reader woken by news of the log's ends, and has them asked for
// if what is known is not newer than tick.
func (r *reader) await(tick uint64) {
	p := r.partition
	p.mu.Lock()
	defer p.mu.Unlock()
	p.await(r, tick)
}

func (p *partition) await(r *reader, tick uint64) {
	p.awaiting[r] = struct{}{}
	// The clock of the wish is the tick after: an answer counts only if its
	// question was asked later than the wish.
	if !p.log.high.after(tick) {
		p.wanted = max(p.wanted, tick)
		if t := p.tail.Load(); t != nil {
			t.probe()
		}
	}
}
