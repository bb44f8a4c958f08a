package deliver

import (
	"context"
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
)

// commitInterval is how long what is done may wait to be committed together
// with what is done meanwhile.
const commitInterval = 200 * time.Millisecond

// committer commits the progress of all partitions in one request at a time.
type committer struct {
	queue *queue
	// send commits once.
	send func(ctx context.Context, all []standing) error
	// failed is told of commits that fail in a row.
	failed func(failures int, err error)

	changed chan struct{} // holds one word that something changed
	urgent  chan struct{} // holds one wish to commit at once

	mu sync.Mutex
	// waiting are closed when the next commit to begin has been acknowledged.
	waiting []chan struct{}
}

func newCommitter(q *queue, send func(context.Context, []standing) error, failed func(int, error)) *committer {
	return &committer{queue: q, send: send, failed: failed, changed: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// notify says that there is something to commit, some time soon.
func (c *committer) notify() { signal(c.changed) }

// hurry says that there is something to commit at once.
func (c *committer) hurry() { signal(c.urgent) }

// signal leaves a word in a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// now commits at once and waits until the broker has it. ctx has to end when the
// partition that this is about is lost.
func (c *committer) now(ctx context.Context, p *partition) error {
	for {
		done, skipped := make(chan struct{}), c.queue.skipped(p)
		c.mu.Lock()
		c.waiting = append(c.waiting, done)
		c.mu.Unlock()
		c.hurry()
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if c.queue.skipped(p) == skipped {
			return nil
		}
		// The commit was without it. The next one may be, too.
		if !pauseFor(ctx, commitInterval) {
			return context.Cause(ctx)
		}
	}
}

// run commits until ctx ends.
func (c *committer) run(ctx context.Context) {
	var pause backoff.Backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.urgent:
		case <-c.changed:
			timer := time.NewTimer(commitInterval)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-c.urgent:
				timer.Stop()
			case <-timer.C:
			}
		}
		err := c.commit(ctx)
		if err == nil {
			pause.Reset()
			continue
		}
		c.failed(pause.Failures(), err)
		c.hurry() // with what is to be committed then
		if !pause.Sleep(ctx) {
			return
		}
	}
}

// commit commits what has changed, once. It gives an error also when ctx ends first.
func (c *committer) commit(ctx context.Context) error {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	all := c.queue.changes()
	if len(all) > 0 {
		if err := c.send(ctx, all); err != nil {
			c.queue.unchanged(all)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.waiting = append(c.waiting, waiting...)
			return err
		}
		c.queue.committed(all)
	}
	for _, done := range waiting {
		close(done)
	}
	return nil
}
