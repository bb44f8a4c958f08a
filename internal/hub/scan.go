package hub

import (
	"container/list"
	"context"
	"math"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// scan reads a partition's log for the readers that stand behind the window.
// It works like a lift: one pass at a time goes from the oldest position that
// is waited for up to the window, and serves all readers it meets on the way.
// So a thousand clients that come back together cost one read of the log, not
// a thousand. It reads on only while one of them has nothing left of what was
// put aside for it. A reader that is slower than the others gets off when too
// much is, and waits for a later pass; nobody waits for it.
//
// The partition's lock guards it.
type scan struct {
	running bool
	abandon context.CancelFunc // ends the step under way
	// at is the offset up to which the pass has looked.
	at int64
	// riding holds the readers that the pass serves, by stream.
	riding map[string]map[*reader]struct{}
	// waiting holds those that stand where the pass has been already.
	waiting map[*reader]struct{}
	// aside holds the readers for whom something is put aside, the one that has
	// had something for the longest first; bytes is what it all takes.
	aside list.List
	bytes int64
}

// noPass is where a scan stands between passes: ahead of everyone, so that all wait.
const noPass int64 = math.MaxInt64

// join lets a scan look for the reader's records. Needs the lock.
func (p *partition) join(r *reader) {
	s := &p.scan
	if r.next >= s.at {
		s.take(r)
		p.runScan()
		return
	}
	if s.waiting == nil {
		s.waiting = make(map[*reader]struct{})
	}
	s.waiting[r] = struct{}{}
	r.state = waiting
	p.runScan()
}

// take lets the pass serve a reader.
func (s *scan) take(r *reader) {
	if s.riding == nil {
		s.riding = make(map[string]map[*reader]struct{})
	}
	if s.riding[r.id] == nil {
		s.riding[r.id] = make(map[*reader]struct{}, 1)
	}
	s.riding[r.id][r] = struct{}{}
	r.state = riding
}

// drop takes a reader off the pass, which ends when it was the last.
func (s *scan) drop(r *reader) {
	delete(s.riding[r.id], r)
	if len(s.riding[r.id]) == 0 {
		delete(s.riding, r.id)
	}
	if len(s.riding) == 0 && !s.running {
		s.at = noPass
	}
}

// hungry tells whether somebody rides who has nothing put aside.
func (s *scan) hungry() bool {
	for _, of := range s.riding {
		for r := range of {
			if len(r.buffer) == 0 {
				return true
			}
		}
	}
	return false
}

// called tells whether somebody waits whom a pass could serve.
func (s *scan) called(reach int64) bool {
	for r := range s.waiting {
		if r.next < reach {
			return true
		}
	}
	return false
}

// deliver gives what was read to those who ride. Records are decoded only for
// them, and without the lock: the pass moves on first, so that a reader who
// joins in between at one of these offsets waits for the next pass.
func (p *partition) deliver(from int64, f broker.Fetched, tick uint64) {
	var wanted []broker.Record
	p.mu.Lock()
	for _, r := range f.Records {
		if id, ok := record.CorrelationID(r.Headers); ok && len(p.scan.riding[id]) > 0 {
			wanted = append(wanted, r)
		}
	}
	p.scan.at = max(from, f.Next)
	p.raise(max(f.HighWatermark, f.Next), tick)
	p.settle(from, f, tick)
	p.mu.Unlock()

	entries := p.decode(wanted)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		for r := range p.scan.riding[e.Reply.StreamID] {
			switch {
			case r.next > e.Cursor.Offset:
			case r.buffered >= maxAside:
				// It looks again from here when it has taken what it was given.
				p.scan.drop(r)
				r.state, r.next = idle, e.Cursor.Offset
			default:
				r.putAside(e)
				r.next = e.Cursor.Offset + 1
				r.notify()
			}
		}
	}
}

// findStart learns where the log begins now, after retention has overtaken the
// pass. Readers before it get off, to be told of the gap.
func (p *partition) findStart(ctx context.Context) bool {
	start, err := p.hub.offset(ctx, p, broker.LogStart)
	if err != nil {
		p.hub.log.Debug("start of a partition's log not known", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Error(err))
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.start = max(p.log.start, start)
	if p.scan.at >= p.log.start {
		return false // not retention, but a log that was cut off: the tail finds out
	}
	for _, of := range p.scan.riding {
		for r := range of {
			if r.next < p.log.start {
				p.scan.drop(r)
				r.state = idle
				r.notify()
			}
		}
	}
	p.scan.at = p.log.start
	return true
}
