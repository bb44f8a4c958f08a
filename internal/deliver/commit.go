package deliver

import (
	"context"
	"sync"
	"time"
)

// commitInterval is how long what is done may wait to be committed together
// with what is done meanwhile.
const commitInterval = 200 * time.Millisecond

// committer commits the progress of all partitions of a generation in one
// request at a time.
type committer struct {
	queue *queue
	// send commits, and returns an error when the generation is over: what may
	// pass is repeated inside until ctx ends.
	send func(ctx context.Context, all []standing) error

	changed chan struct{} // holds one word that something changed
	urgent  chan struct{} // holds one wish to commit at once

	mu sync.Mutex
	// waiting is closed when the next commit to begin has been acknowledged;
	// nil while nobody waits for it.
	waiting chan struct{}
}

func newCommitter(q *queue, send func(context.Context, []standing) error) *committer {
	return &committer{queue: q, send: send, changed: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// notify says that there is something to commit, some time soon.
func (c *committer) notify() { signal(c.changed) }

// signal leaves a word in a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// now commits at once and waits until the broker has it.
func (c *committer) now(ctx context.Context) error {
	c.mu.Lock()
	if c.waiting == nil {
		c.waiting = make(chan struct{})
	}
	done := c.waiting
	c.mu.Unlock()
	signal(c.urgent)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// run commits until ctx ends, or the generation does: then it returns why.
func (c *committer) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.urgent:
		case <-c.changed:
			timer := time.NewTimer(commitInterval)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-c.urgent:
				timer.Stop()
			case <-timer.C:
			}
		}
		if err := c.commit(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// commit commits what has changed, once. It gives an error also when ctx ends first.
func (c *committer) commit(ctx context.Context) error {
	c.mu.Lock()
	done := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	if all := c.queue.changes(); len(all) > 0 {
		if err := c.send(ctx, all); err != nil {
			c.queue.unchanged(all)
			return err
		}
	}
	if done != nil {
		close(done)
	}
	return nil
}
