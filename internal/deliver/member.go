package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	sessionTimeout   = 10 * time.Second
	rebalanceTimeout = 30 * time.Second
	// heartbeat is how soon a member learns that partitions are shared out anew.
	// Those that change hands stand still for about as long.
	heartbeat = 300 * time.Millisecond
	// margin is how long before the end of its session a member stops to count on it.
	margin = 3 * time.Second
	// leaveTimeout is how long leaving the group may take once everything was given up.
	leaveTimeout = 2 * time.Second

	// lastGrace is how long tries may go on that cannot be handed over, and lastTry
	// how long cancelled ones have to notice it.
	lastGrace = time.Second
	lastTry   = time.Second
	// lastCommit bounds the commit with which partitions are given up.
	lastCommit = 5 * time.Second
	// aliveTimeout is how long the first sign of life may take to be on the control
	// topic before partitions are given up without it.
	aliveTimeout = time.Second
)

// commitFailures is how many commits in a row may fail unsaid: some seconds.
const commitFailures = 5

// Why tries are cancelled.
var (
	errMoved   = errors.New("the partition went to another member of the group, and the try could not be handed over")
	errLost    = errors.New("another member of the group may have had the partition, since this one was out of reach for too long")
	errDrained = errors.New("the gateway was stopped, and the answer was not complete when drain had passed")
	errAnew    = errors.New("the topic was deleted and made again")
)

// cutShort reports whether an error means that the try ended because of this process
// and not of the upstream.
func cutShort(err error) bool {
	return errors.Is(err, errMoved) || errors.Is(err, errLost) || errors.Is(err, errDrained) || errors.Is(err, errAnew)
}

// join begins to be a member of the group.
func (d *Delivery) join() *broker.Membership {
	return d.config.Broker.JoinGroup(broker.GroupConfig{
		Group: d.config.Group, Topic: d.config.Topic,
		Session: sessionTimeout, Rebalance: rebalanceTimeout, Heartbeat: heartbeat,
		Margin: margin, Leave: leaveTimeout, Logger: d.log,
		Assigned: d.assigned, Revoke: d.revoke,
	})
}

// assigned takes partitions, and lets go of those that another member may have.
func (d *Delivery) assigned(a broker.Assignment) {
	lost, gained, tenure, why := a.Lost, a.Gained, a.Tenure, errLost
	if was := d.reader.topic(); was.ID != a.Topic.ID && was.Name != "" {
		lost, gained, tenure, why = d.queue.owned(), a.Owned, 0, errAnew
	}
	d.reader.revoke(lost)
	if len(lost) > 0 {
		d.log.Warn("partitions lost", d.fields(zap.Int32s("partitions", lost), zap.Error(why))...)
		d.queue.drop(lost, why)
	}
	// Whether somebody else has had them, the reader finds out.
	d.queue.interrupt(a.Regained)
	d.windows.keep(a.Owned)
	d.log.Info("partitions to deliver", d.fields(zap.Int32("generation", a.Generation), zap.Int32s("partitions", a.Owned))...)
	d.reader.assign(a.Topic, tenure, slices.Concat(gained, a.Regained))
}

// revoke gives partitions up. Tries of them that run go on, and are handed over:
// the last commit says that this run has them, and how they end is told on the
// control topic. Where that cannot be, they have a moment to end and are cut short.
func (d *Delivery) revoke(ctx context.Context, numbers []int32) {
	began := time.Now()
	d.reader.revoke(numbers)
	d.queue.dropSuspects(numbers, errLost) // nothing can be committed for them
	running := d.queue.stop(numbers)
	handed := 0
	switch {
	case running == 0:
	// A topic that is merely slow just now will have the sign in time: until then
	// the tries say nothing.
	case d.handovers.establish(ctx) || d.control.isThere():
		handed = d.queue.handOver(numbers)
		d.handovers.add(handed)
	default:
		d.log.Warn("tries cannot be handed over, since the control topic cannot be written and read; those that take too long are cut short",
			d.fields(zap.String("control", d.config.Control), zap.Int("tries", running))...)
		d.cutShort(ctx, numbers)
	}
	bound := lastCommit
	if handed > 0 && d.closing() {
		bound = max(bound, d.options().Drain) // a coordinator that is away gives the partitions to nobody
	}
	if err := d.lastCommit(ctx, numbers, bound); err != nil {
		d.log.Warn("last commit of partitions refused; some finished work may be done again", d.fields(zap.Int32s("partitions", numbers), zap.Error(err))...)
		d.queue.drop(numbers, errLost)
	}
	d.queue.remove(numbers)
	d.log.Debug("partitions given up", d.fields(zap.Int32s("partitions", numbers), zap.Int("handed_over", handed), zap.Duration("took", time.Since(began)))...)
}

// cutShort ends the tries of partitions, after a while.
func (d *Delivery) cutShort(ctx context.Context, numbers []int32) {
	grace := lastGrace
	if d.closing() {
		grace = d.options().Drain
	}
	if d.idleWithin(ctx, numbers, grace) {
		return
	}
	d.queue.cancel(numbers, errMoved)
	if !d.idleWithin(context.Background(), numbers, lastTry) {
		// A handler that does not mind its context cannot be ended. The commit says
		// that its try is under way, so it counts as cut short.
		d.log.Error("tries go on although they were cancelled", d.fields(zap.Int32s("partitions", numbers))...)
	}
}

func (d *Delivery) idleWithin(ctx context.Context, numbers []int32, t time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, t)
	defer cancel()
	return d.queue.awaitIdle(ctx, numbers)
}

// lastCommit commits what the partitions' next owner has to know.
func (d *Delivery) lastCommit(ctx context.Context, numbers []int32, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	for {
		p := d.queue.uncommitted(numbers)
		if p == nil {
			return nil
		}
		if err := d.committer.now(ctx, p); err != nil {
			return err
		}
	}
}

// may reports whether what a try has to say may be produced: nobody else can have
// its partition, or it was handed over and its run is known to be alive.
func (d *Delivery) may(j *job) bool {
	switch d.queue.standing(j) {
	case held:
		return d.member.Holds()
	case handed:
		return d.handovers.alive(j.handedBy)
	}
	return false
}

// send commits once. What could not be committed is not sent again as it is: the
// partitions may be another's by then.
func (d *Delivery) send(ctx context.Context, all []standing) error {
	offsets := make([]broker.CommitOffset, len(all))
	for i, s := range all {
		if len(s.metadata) > maxMetadata {
			// Kafka would refuse it, and with it all that comes later. It cannot
			// be: see fits.
			d.log.Error("progress is larger than a commit may be", d.fields(zap.Int32("partition", s.partition), zap.Int("bytes", len(s.metadata)))...)
		}
		offsets[i] = broker.CommitOffset{Partition: s.partition, Offset: s.offset, Metadata: s.metadata, Tenure: s.tenure}
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	if err := d.member.Commit(ctx, offsets); err != nil {
		return fmt.Errorf("commit progress: %w", err)
	}
	return nil
}

// uncommitted says that progress could not be committed so often.
func (d *Delivery) uncommitted(failures int, err error) {
	if failures == commitFailures && !errors.Is(err, broker.ErrNotMember) {
		// Every try that fails waits for it, so somebody has to know.
		d.log.Error("progress cannot be committed; what failed is not tried again until it can", d.fields(zap.Error(err))...)
	}
}

func (d *Delivery) fields(more ...zap.Field) []zap.Field {
	return append([]zap.Field{zap.String("topic", d.config.Topic), zap.String("group", d.config.Group)}, slices.Clip(more)...)
}
