package hub

import (
	"container/list"
	"context"
	"errors"
	"math"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// What a scan asks a broker for at a time. The broker holds it only where the
// scan meets a transaction that is open, of which it did not know yet.
const (
	scanMaxBytes = 1 << 20
	scanMaxWait  = 100 * time.Millisecond
)

// maxPasses bounds the answers to scans that are awaited or worked off at once,
// of one broker: each may have scanMaxBytes and what they decode to. A broker
// that does not answer holds up its own partitions and no others.
const maxPasses = 2

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

// runScan has the scan go on if it stands still. Needs the lock.
func (p *partition) runScan() {
	if !p.scan.running {
		p.scan.running = p.hub.spawn(p.scanAll)
	}
}

// scanAll reads on for as long as there is somebody to read for.
func (p *partition) scanAll(ctx context.Context) {
	var pause backoff.Backoff
	for {
		at, more := p.nextStop()
		if !more {
			return
		}
		on, err := p.step(ctx, at)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && on:
			pause.Reset()
			continue
		case err != nil && p.interrupted(ctx, at, err):
			continue
		}
		if !pause.Sleep(ctx) {
			return
		}
	}
}

// interrupted takes the error of a step, and tells whether to go on at once.
func (p *partition) interrupted(ctx context.Context, at int64, err error) bool {
	p.hub.log.Debug("scan of a partition interrupted", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Int64("offset", at), zap.Error(err))
	switch {
	case errors.Is(err, kafka.OffsetOutOfRange):
		return p.findStart(ctx)
	case moved(err):
		p.topic.outdated()
	}
	return false
}

// reach is how far a pass can read: to the window, or to a transaction that is
// open. Those who wait behind one hold up nobody; take wakes them by what the
// tail learns of it. Needs the lock.
func (p *partition) reach() int64 {
	if p.log.stable.after(0) {
		return min(p.window.start, p.log.stable.at)
	}
	return p.window.start
}

// nextStop gives the offset where to read on; false lets the scan rest, because
// nobody needs that now. Where the pass cannot go further, or all who ride have
// enough and others wait, everyone gets off, and the next pass begins at the
// oldest position waited for.
func (p *partition) nextStop() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, reach := &p.scan, p.reach()
	if len(s.riding) > 0 && s.at < reach && !p.retired {
		if s.hungry() {
			return s.at, true
		}
		if !s.called(reach) {
			s.running = false
			return 0, false
		}
	}
	for _, of := range s.riding {
		for r := range of {
			r.state = idle
			r.next = max(r.next, s.at)
			r.notify()
		}
	}
	clear(s.riding)
	s.at = noPass
	for r := range s.waiting {
		switch {
		case p.retired || r.next >= reach && r.next < p.window.start:
			continue
		case r.next >= p.window.start: // the window was moved back
			r.state = idle
			r.notify()
		default:
			s.at = min(s.at, r.next)
			s.take(r)
		}
		delete(s.waiting, r)
	}
	s.running = len(s.riding) > 0
	return s.at, s.running
}

// step reads once, and tells whether that has brought the scan on, or to where
// it ends. It holds a place among the passes no longer than that takes.
func (p *partition) step(ctx context.Context, at int64) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.scan.abandon = cancel
	p.mu.Unlock()
	t := p.tail.Load() // if another takes over from here on it abandons the step
	if t == nil {
		return false, kafka.LeaderNotAvailable
	}
	select {
	case t.passes <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-t.passes }()
	// Before there is more, and not after: those for whom something was put aside
	// have had time to take it.
	p.hub.evict()
	tick := p.hub.tick()
	f, err := p.fetch(ctx, t.leader, at)
	if err != nil {
		return false, err
	}
	p.deliver(at, f, tick)
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.Next > at || p.reach() <= at, nil
}

// abandonStep ends the step under way, because the broker that it asks does not
// lead the partition any more.
func (p *partition) abandonStep() {
	p.mu.Lock()
	abandon := p.scan.abandon
	p.mu.Unlock()
	if abandon != nil {
		abandon()
	}
}

// fetch asks the partition's leader for records from an offset on.
func (p *partition) fetch(ctx context.Context, leader int32, from int64) (broker.Fetched, error) {
	got, err := p.hub.broker.Fetch(ctx, broker.FetchRequest{
		Leader: leader, MaxWait: scanMaxWait, MaxBytes: scanMaxBytes,
		From: []broker.FetchFrom{{Topic: p.topic.name, ID: p.id, Partition: p.index, Offset: from}},
	})
	if err != nil {
		return broker.Fetched{}, err
	}
	if len(got) != 1 {
		return broker.Fetched{}, kafka.Unknown
	}
	return got[0], p.failure(got[0])
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
