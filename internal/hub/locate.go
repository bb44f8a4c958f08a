package hub

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
)

// locations remembers where in a partition's log a time begins, by minute. They
// are asked for only where a stream may have replies in a partition that its
// token does not name, so that it knows no floor there. A day has 1,440 of them.
// The partition's lock guards it.
type locations struct {
	known   map[int64]told
	wanted  map[int64]struct{}
	running bool
}

// locate gives the first offset with a log time at or after at, rounded down to
// the minute; where the log has none, an end that it had. Where that is not known
// yet all readers are woken when it is.
func (p *partition) locate(at time.Time) (told, bool) {
	minute := at.Truncate(time.Minute).UnixMilli()
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &p.times
	if from, ok := l.known[minute]; ok {
		return from, true
	}
	if l.wanted == nil {
		l.known, l.wanted = make(map[int64]told), make(map[int64]struct{})
	}
	l.wanted[minute] = struct{}{}
	if !l.running {
		l.running = p.hub.spawn(p.locateAll)
	}
	return told{}, false
}

// locateAll asks for the times that are wanted until none is left.
func (p *partition) locateAll(ctx context.Context) {
	var pause backoff.Backoff
	for {
		minute, ok := p.nextLocation()
		if !ok {
			return
		}
		offset, err := p.hub.offset(ctx, p, minute)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			p.hub.log.Debug("time not found in a log", zap.String("topic", p.topic.name), zap.Int32("partition", p.index), zap.Error(err))
			p.topic.outdated()
			if !pause.Sleep(ctx) {
				return
			}
			continue
		}
		pause.Reset()
		p.located(minute, offset)
	}
}

// nextLocation gives a time that is wanted; without one the search ends.
func (p *partition) nextLocation() (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.retired {
		for minute := range p.times.wanted {
			return minute, true
		}
	}
	p.times.running = false
	return 0, false
}

func (p *partition) located(minute, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The log is known to reach there now, which is later than it was asked.
	p.times.known[minute] = told{offset, p.hub.tick()}
	delete(p.times.wanted, minute)
	for r := range p.readers {
		r.notify()
	}
}
