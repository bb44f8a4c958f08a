package claims

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// maxWait is how long a broker holds a fetch while there is nothing new, and
	// firstWait the same before all that was there has been read: requests wait for that.
	maxWait   = time.Second
	firstWait = 50 * time.Millisecond
	// maxBytes bounds one answer.
	maxBytes = 8 << 20
	// refresh is how long a change of the topic that no error tells of may go unnoticed.
	refresh = 10 * time.Second
	// retry is when partitions that could not be read are tried again. It is longer
	// than maxWait, since it gives up the fetches that are held.
	retry = 3 * time.Second
	// askTime bounds a look at the topic.
	askTime = 10 * time.Second
)

// reader reads the claims topic into a book.
//
// It goes in rounds. In each the topic is looked at, and then its partitions are
// read, with one goroutine for each broker that leads some, until one of them
// meets an error or the topic has changed.
type reader struct{ book *Book }

// run reads until the context ends.
func (r *reader) run(ctx context.Context) {
	var pause backoff.Backoff
	for {
		began := time.Now()
		err := r.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > backoff.Most { // it went well for a while
			pause.Reset()
		}
		if err != nil {
			level := zap.DebugLevel
			if pause.Failures() == 0 { // the tries that follow say the same
				level = zap.WarnLevel
			}
			r.book.log.Log(level, "claims not read", zap.String("topic", Topic), zap.Error(err))
		}
		pause.Sleep(ctx)
	}
}

// round looks at the topic and reads it. It ends without an error when the
// topic has changed.
func (r *reader) round(ctx context.Context) error {
	topic, err := r.find(ctx)
	if err != nil {
		return err
	}
	r.book.adopt(topic)
	// One broker that does not answer must not keep the others' partitions from
	// being read: its own are asked for again in a moment.
	failed := r.locate(ctx, topic)
	led := make(map[int32][]int32)
	missing := 0
	for p, leader := range topic.Leaders {
		if leader < 0 || r.book.next(int32(p)) == unknown {
			missing++
			continue
		}
		led[leader] = append(led[leader], int32(p))
	}
	if len(led) == 0 {
		return cmp.Or(failed, errLeaderless)
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var reading sync.WaitGroup
	for leader, partitions := range led {
		reading.Go(func() { cancel(r.follow(ctx, topic, leader, partitions)) })
	}
	reading.Go(func() { cancel(r.watch(ctx, topic, missing > 0)) })
	reading.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errChanged) {
		return err
	}
	return failed
}

// errLeaderless says that none of the partitions can be read.
var errLeaderless = errors.New("no partition has a leader")

// find gives the topic, and makes it where that is allowed.
func (r *reader) find(ctx context.Context) (broker.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	spec, create := r.book.wanted()
	if create {
		return r.book.config.Broker.Ensure(ctx, spec)
	}
	t, err := r.book.config.Broker.Topic(ctx, spec.Name)
	if errors.Is(err, kafka.UnknownTopicOrPartition) {
		return t, fmt.Errorf("%w; create it, or let the gateway create topics", err)
	}
	return t, err
}

// errChanged ends a round in which the topic has changed, or may have.
var errChanged = errors.New("the topic has changed")

// watch looks at the topic now and then, until it is not what it was. With
// partitions missing the next round has to come soon.
func (r *reader) watch(ctx context.Context, topic broker.Topic, missing bool) error {
	interval := refresh
	if missing {
		interval = retry
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if missing {
			return errChanged
		}
		now, err := r.book.config.Broker.Topic(ctx, topic.Name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, kafka.UnknownTopicOrPartition):
			return err
		case err != nil: // whoever reads meets it too, or it does not matter
		case now.ID != topic.ID || !slices.Equal(now.Leaders, topic.Leaders):
			return errChanged
		}
	}
}

// locate asks where the partitions begin that have not been read yet.
func (r *reader) locate(ctx context.Context, topic broker.Topic) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	asked := r.book.unlocated()
	asked = slices.DeleteFunc(asked, func(p int32) bool { return topic.Leaders[p] < 0 })
	if len(asked) == 0 {
		return nil
	}
	starts, err := r.book.config.Broker.Offsets(ctx, topic, asked, broker.LogStart)
	r.book.start(starts)
	return err
}

// follow reads what one broker leads, until there is an error.
func (r *reader) follow(ctx context.Context, topic broker.Topic, leader int32, partitions []int32) error {
	for round := 0; ; round++ {
		q := broker.FetchRequest{Leader: leader, MaxWait: maxWait, MaxBytes: maxBytes}
		for i := range partitions {
			// A broker fills its answer in the order of the request: a busy
			// partition must not starve those after it.
			p := partitions[(round+i)%len(partitions)]
			q.From = append(q.From, broker.FetchFrom{Topic: topic.Name, ID: topic.ID, Partition: p, Offset: r.book.next(p)})
		}
		if !r.book.read(partitions) {
			q.MaxWait = firstWait
		}
		asked := time.Now()
		got, err := r.book.config.Broker.Fetch(ctx, q)
		if err != nil {
			return err
		}
		var errs []error
		for i := range got {
			errs = append(errs, r.take(ctx, topic, &got[i], asked))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
}

// take takes the answer for one partition.
func (r *reader) take(ctx context.Context, topic broker.Topic, got *broker.Fetched, asked time.Time) error {
	if errors.Is(got.Err, kafka.OffsetOutOfRange) {
		return r.relocate(ctx, topic, got.Partition)
	}
	// Records may come before the bytes that nobody can read. Those are not passed
	// over: a claim could be among them.
	r.book.take(got, asked)
	if got.Err != nil {
		return fmt.Errorf("read partition %d: %w", got.Partition, got.Err)
	}
	return nil
}

// relocate finds out why a broker does not have the next offset. Retention may
// have overtaken a gateway that was stopped for long: the claims that it missed
// have ended. Or the log was cut off, and what was read may not be there any more.
func (r *reader) relocate(ctx context.Context, topic broker.Topic, partition int32) error {
	starts, err := r.book.config.Broker.Offsets(ctx, topic, []int32{partition}, broker.LogStart)
	if err != nil {
		return err
	}
	if start := starts[partition]; r.book.next(partition) < start {
		r.book.skip(partition, start)
		return nil
	}
	r.book.log.Warn("claims topic was cut off; reading the partition again",
		zap.String("topic", topic.Name), zap.Int32("partition", partition), zap.Int64("offset", r.book.next(partition)))
	r.book.again(partition, starts[partition])
	return nil
}
