package hub

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
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

// silentFailures is how many steps in a row may fail unsaid: a leader moves, a
// connection breaks, and some seconds later all is well.
const silentFailures = 5

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
		if err != nil && pause.Failures() == silentFailures {
			// Those who ride hear nothing for as long as this lasts.
			p.hub.log.Error("partition of replies cannot be read back", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Int64("offset", at), zap.Error(err))
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
