package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	sessionTimeout   = 10 * time.Second
	rebalanceTimeout = 15 * time.Second
	heartbeat        = time.Second

	// drain is how long tries may go on when a generation ends. It is under a
	// third of both timeouts, so that a member that has stopped is still one.
	drain = 3 * time.Second
	// lastTry is how long cancelled tries have to notice it.
	lastTry = 2 * time.Second
	// lastCommit bounds the commit with which a generation ends.
	lastCommit = 2 * time.Second
)

// commitFailures is how many commits in a row may fail unsaid: some seconds.
const commitFailures = 5

// Why tries are cancelled.
var (
	errEnded = errors.New("the partition goes to another member of the group")
	errLost  = errors.New("the group's coordinator was not reached in time, so the partition may be another member's")
)

// generation is what this member does between two rebalances: it owns some
// partitions, reads them, has their records tried, and commits.
//
// Nobody else tries those records while this member keeps its session. So it
// sends heartbeats of its own, because kafka-go's stop when the generation
// begins to end and a try may take longer than that; and it looks at a deadline
// before each try and each reply: past it the coordinator may have given the
// partitions to another.
type generation struct {
	d     *Delivery
	kg    *kafka.Generation
	topic broker.Topic

	queue     *queue
	committer *committer
	reader    *reader

	// tries is the context of all of them; it ends when they have to stop.
	tries  context.Context
	cancel context.CancelCauseFunc

	began time.Time
	// beat is when the last good heartbeat was sent, since began, on the
	// monotonic clock.
	beat atomic.Int64
	// lost is closed when a commit or a heartbeat says that this generation is
	// not the coordinator's any more.
	lost     chan struct{}
	loseOnce sync.Once
	// outdated is closed when the topic is not what it was when its partitions
	// were shared out.
	outdated chan struct{}
	overOnce sync.Once
}

func newGeneration(d *Delivery, kg *kafka.Generation, topic broker.Topic) *generation {
	g := &generation{
		d: d, kg: kg, topic: topic, began: time.Now(),
		lost: make(chan struct{}), outdated: make(chan struct{}),
	}
	g.beat.Store(-int64(sessionTimeout)) // until one was good, nothing is sure
	g.tries, g.cancel = context.WithCancelCause(context.Background())
	g.queue = newQueue(0, d.config.MaxBytes, g.begin, g.changed)
	g.committer = newCommitter(g.queue, g.send)
	g.reader = newReader(g)
	return g
}

// changed is called with the queue's lock held.
func (g *generation) changed() {
	g.committer.notify()
	g.reader.wake()
}

// begin starts a try. It is called with the queue's lock held.
func (g *generation) begin(j *job) { go g.try(j) }

// holds tells whether this member surely still owns its partitions.
func (g *generation) holds() bool {
	select {
	case <-g.lost:
		return false
	default:
	}
	return time.Since(g.began)-time.Duration(g.beat.Load()) < sessionTimeout-drain
}

// ended tells why nothing may be produced any more, nil if it may: what a
// cancelled try finds out counts for nothing, and may be another's by now.
func (g *generation) ended() error {
	if err := context.Cause(g.tries); err != nil {
		return err
	}
	if !g.holds() {
		return errLost
	}
	return nil
}

// lose says that the partitions may be another's.
func (g *generation) lose() { g.loseOnce.Do(func() { close(g.lost) }) }

// over says that the partitions have to be shared out anew.
func (g *generation) over() { g.overOnce.Do(func() { close(g.outdated) }) }

// run does all that until the generation ends, and returns when nothing of it
// is left: kafka-go joins the next one after that.
func (g *generation) run(ctx context.Context) {
	defer g.cancel(errEnded)
	if !g.confirm(ctx) {
		return
	}
	work, stop := context.WithCancel(context.Background())
	var working sync.WaitGroup
	working.Go(func() { g.beatUntil(work) })
	working.Go(func() {
		if err := g.committer.run(work); err != nil {
			g.d.log.Warn("group took the partitions away", g.fields(zap.Error(err))...)
			g.lose()
		}
	})
	reading, stopReading := context.WithCancel(ctx)
	working.Go(func() { g.reader.run(reading) })

	select {
	case <-ctx.Done():
	case <-g.lost:
	case <-g.outdated:
	}
	stopReading()
	g.end()
	stop()
	working.Wait()
	g.commitLast()
}

// end lets the tries that run go on for a while, then cancels them.
func (g *generation) end() {
	idle := g.queue.end()
	timer := time.NewTimer(drain)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
		g.cancel(errEnded)
	case <-g.lost:
		g.cancel(errLost)
	}
	select {
	case <-idle:
	case <-time.After(lastTry):
		// A handler that does not mind its context cannot be ended. What it
		// still does counts for nothing: its record has been tried and failed.
		g.d.log.Error("tries go on although they were cancelled", g.fields(zap.Int("tries", g.queue.close()))...)
	}
	g.cancel(errEnded)
}

// confirm asks the coordinator whether the generation is still this member's,
// until it has an answer: the process may have been frozen since it has joined.
func (g *generation) confirm(ctx context.Context) bool {
	var pause backoff.Backoff
	for {
		g.sendHeartbeat(ctx)
		if g.holds() {
			return true
		}
		select {
		case <-g.lost:
			return false
		default:
		}
		if time.Since(g.began) > sessionTimeout || !pause.Sleep(ctx) {
			return false
		}
	}
}

// beatUntil sends heartbeats.
func (g *generation) beatUntil(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.sendHeartbeat(ctx)
		if !g.holds() {
			g.lose()
		}
	}
}

// sendHeartbeat sends one. When it is answered with a rebalance under way it has
// counted all the same.
func (g *generation) sendHeartbeat(ctx context.Context) {
	sent := time.Since(g.began)
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout-drain)
	defer cancel()
	err := g.d.config.Broker.Heartbeat(ctx, g.kg.GroupID, g.kg.ID, g.kg.MemberID)
	switch {
	case err == nil, errors.Is(err, kafka.RebalanceInProgress):
		g.beat.Store(int64(sent))
	case stale(err):
		g.lose()
	}
}

// stale tells whether a coordinator's answer means that this generation is over.
func stale(err error) bool {
	return errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.FencedInstanceID)
}

// send commits, and repeats what may pass until ctx ends.
func (g *generation) send(ctx context.Context, all []standing) error {
	var pause backoff.Backoff
	for {
		err := g.commit(ctx, all)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || stale(err) || errors.Is(err, kafka.RebalanceInProgress) {
			return fmt.Errorf("commit progress: %w", err)
		}
		if pause.Failures() == commitFailures {
			// Every try that fails waits for it, so somebody has to know.
			g.d.log.Error("progress cannot be committed; what failed is not tried again until it can", g.fields(zap.Error(err))...)
		}
		if !pause.Sleep(ctx) {
			return fmt.Errorf("commit progress: %w", err)
		}
	}
}

// commit commits once.
func (g *generation) commit(ctx context.Context, all []standing) error {
	offsets := make([]kafka.OffsetCommit, len(all))
	for i, s := range all {
		offsets[i] = kafka.OffsetCommit{Partition: int(s.partition), Offset: s.offset, Metadata: s.metadata}
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	answer, err := g.d.config.Broker.API().OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: g.kg.GroupID, GenerationID: int(g.kg.ID), MemberID: g.kg.MemberID,
		Topics: map[string][]kafka.OffsetCommit{g.d.config.Topic: offsets},
	})
	if err != nil {
		return err
	}
	for _, p := range answer.Topics[g.d.config.Topic] {
		if p.Error != nil {
			return p.Error
		}
	}
	return nil
}

// commitLast commits what the tries left behind, cancelled ones too.
func (g *generation) commitLast() {
	ctx, cancel := context.WithTimeout(context.Background(), lastCommit)
	defer cancel()
	if err := g.committer.commit(ctx); err != nil {
		g.d.log.Warn("last commit of a generation refused; some finished work may be done again", g.fields(zap.Error(err))...)
	}
}

func (g *generation) fields(more ...zap.Field) []zap.Field {
	return append([]zap.Field{
		zap.String("topic", g.d.config.Topic), zap.String("group", g.kg.GroupID), zap.Int32("generation", g.kg.ID),
	}, more...)
}
