package hub

import (
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

// What a scan asks a broker for at a time. The broker holds it only while the
// last records before the window are in a transaction that was just decided.
const (
	scanMaxBytes = 4 << 20
	scanMaxWait  = 100 * time.Millisecond
)

// maxPasses bounds the passes that run at once, over all partitions: each may
// hold an answer of scanMaxBytes and what it decodes to.
const maxPasses = 4

// scan reads a partition's log for the readers that stand behind the window.
// It works like a lift: one pass at a time goes from the oldest position that
// is waited for up to the window, and serves all readers it meets on the way.
// So a thousand clients that come back together cost one read of the log, not
// a thousand. A reader that does not take what is put aside for it gets off
// and waits for a later pass; nobody waits for it.
//
// The partition's lock guards it.
type scan struct {
	running bool
	// at is the offset up to which the pass has looked.
	at int64
	// riding holds the readers that the pass serves, by stream.
	riding map[string]map[*reader]struct{}
	// waiting holds those that stand where the pass has been already.
	waiting map[*reader]struct{}
}

// noPass is where a scan stands between passes: ahead of everyone, so that all wait.
const noPass int64 = math.MaxInt64

// join lets a scan look for the reader's records. Needs the lock.
func (p *partition) join(r *reader) {
	s := &p.scan
	if s.running && r.next >= s.at {
		s.take(r)
		return
	}
	if s.waiting == nil {
		s.waiting = make(map[*reader]struct{})
	}
	s.waiting[r] = struct{}{}
	r.state = waiting
	if !s.running {
		s.running = true
		s.at = noPass
		if !p.hub.spawn(p.scanAll) {
			s.running = false
		}
	}
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

// drop takes a reader off the pass.
func (s *scan) drop(r *reader) {
	delete(s.riding[r.id], r)
	if len(s.riding[r.id]) == 0 {
		delete(s.riding, r.id)
	}
}

// scanAll runs passes until nobody waits for one.
func (p *partition) scanAll(ctx context.Context) {
	for {
		select {
		case p.hub.passes <- struct{}{}:
		case <-ctx.Done():
			return
		}
		again := p.beginPass()
		if again {
			p.pass(ctx)
		}
		<-p.hub.passes
		if !again || ctx.Err() != nil {
			return
		}
	}
}

// beginPass sets a pass up at the oldest position waited for; false ends the
// scan, because there is none.
func (p *partition) beginPass() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.scan
	if len(s.waiting) == 0 || p.retired {
		s.running = false
		return false
	}
	first := true
	for r := range s.waiting {
		if first || r.next < s.at {
			s.at, first = r.next, false
		}
		s.take(r)
	}
	clear(s.waiting)
	return true
}

// pass reads up to the window, or until nobody rides any more.
func (p *partition) pass(ctx context.Context) {
	var pause backoff.Backoff
	for {
		at, more := p.nextStop()
		if !more {
			return
		}
		tick := p.hub.tick()
		f, err := p.fetch(ctx, at)
		if err == nil {
			p.deliver(at, f, tick)
			pause.Reset()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		p.hub.log.Debug("scan of a partition interrupted", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Int64("offset", at), zap.Error(err))
		switch {
		case errors.Is(err, kafka.OffsetOutOfRange):
			if p.findStart(ctx) {
				continue
			}
		case moved(err):
			p.topic.outdated()
		}
		if !pause.Sleep(ctx) {
			return
		}
	}
}

// nextStop gives the offset where the pass reads on. When it has reached the
// window, everyone who rides gets off there.
func (p *partition) nextStop() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.scan
	if len(s.riding) > 0 && s.at < p.window.start && !p.retired {
		return s.at, true
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
	return 0, false
}

// fetch asks the partition's leader for records from an offset on.
func (p *partition) fetch(ctx context.Context, from int64) (broker.Fetched, error) {
	t := p.tail.Load()
	if t == nil {
		return broker.Fetched{}, kafka.LeaderNotAvailable
	}
	got, err := p.hub.broker.Fetch(ctx, broker.FetchRequest{
		Leader: t.leader, MaxWait: scanMaxWait, MaxBytes: scanMaxBytes,
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
	p.mu.Unlock()

	entries := p.decode(wanted)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		for r := range p.scan.riding[e.Reply.StreamID] {
			switch {
			case r.next > e.Cursor.Offset:
			case len(r.buffer) >= maxBuffered || r.buffered >= maxBufferedBytes:
				// It looks again from here when it has taken what it was given.
				p.scan.drop(r)
				r.state, r.next = idle, e.Cursor.Offset
			default:
				r.buffer = append(r.buffer, e)
				r.buffered += e.size
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
