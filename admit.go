package osmosis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

const (
	// sampleEvery is how often a route with admit looks at its backlog, and
	// paceOver the time over which it sees how fast that is worked off.
	sampleEvery = time.Second
	paceOver    = 10 * time.Second
	// longestRetry bounds what a client is asked to wait.
	longestRetry = time.Hour
)

// admission knows how long a request to a topic would wait for its turn, and
// turns away those that would wait too long.
type admission struct {
	topic, group string
	limit        time.Duration
	// delivery is what this process delivers of the topic in the group, nil if
	// nothing.
	delivery *delivery

	// drain is how long the backlog takes, in nanoseconds, as of the last look;
	// 0 where that is not known: nobody is turned away on a guess.
	drain atomic.Int64

	samples []backlogSample // oldest first
	moved   time.Time       // when progress was seen last
}

// backlogSample is how far a group was at some time.
type backlogSample struct {
	at      time.Time
	done    map[int32]int64 // by partition: the records that are, counted from its beginning
	backlog int64
}

// refusal says why a request is not taken now, nil if it is.
func (a *admission) refusal() *problem {
	if a == nil {
		return nil
	}
	drain := time.Duration(a.drain.Load())
	if drain <= a.limit {
		return nil
	}
	return &problem{
		Status:     http.StatusTooManyRequests,
		Detail:     fmt.Sprintf("What is queued here takes about %s, and more is not taken beyond %s. Nothing was queued; try again later.", drain.Round(time.Second), a.limit),
		RetryAfter: min(max(drain-a.limit, time.Second), longestRetry),
	}
}

// startAdmissions begins to look at the backlogs of the routes that ask for it.
// Deliveries have to have started.
func (a *App) startAdmissions(ctx context.Context, i *inside) {
	a.routes.mu.Lock()
	defer a.routes.mu.Unlock()
	for _, admission := range a.routes.admissions {
		admission.delivery = a.deliveries[a.deliveryKey(admission.topic, admission.group)]
		a.working.Go(func() { admission.run(ctx, i.client, a.logger) })
	}
}

// run looks at the backlog until ctx ends.
func (a *admission) run(ctx context.Context, client *broker.Client, log *zap.Logger) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		sample, err := a.look(ctx, client)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// What was known a while ago says nothing about now.
			log.Debug("backlog not known", zap.String("topic", a.topic), zap.String("group", a.group), zap.Error(err))
			if n := len(a.samples); n > 0 && time.Since(a.samples[n-1].at) > paceOver {
				a.samples = nil
				a.drain.Store(0)
			}
		default:
			a.drain.Store(int64(a.add(sample)))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look asks the brokers how far the group is.
func (a *admission) look(ctx context.Context, client *broker.Client) (backlogSample, error) {
	ctx, cancel := context.WithTimeout(ctx, paceOver)
	defer cancel()
	topic, err := client.Topic(ctx, a.topic)
	if err != nil {
		return backlogSample{}, err
	}
	partitions := make([]int32, topic.Partitions())
	asked := make([]int, len(partitions))
	for i := range partitions {
		partitions[i], asked[i] = int32(i), i
	}
	// Commits first: read after the ends they could be ahead of them.
	answer, err := client.API().OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: a.group, Topics: map[string][]int{a.topic: asked}})
	if err == nil && !errors.Is(answer.Error, kafka.GroupIdNotFound) {
		err = answer.Error
	}
	if err != nil {
		return backlogSample{}, fmt.Errorf("read the commits of group %q: %w", a.group, err)
	}
	starts, err := client.Offsets(ctx, topic, partitions, broker.LogStart)
	if err != nil {
		return backlogSample{}, err
	}
	ends, err := client.Offsets(ctx, topic, partitions, broker.HighWatermark)
	if err != nil {
		return backlogSample{}, err
	}
	atOnce, err := a.atOnce(ctx, client, topic)
	if err != nil {
		return backlogSample{}, err
	}
	sample := backlogSample{at: time.Now(), done: starts}
	var waiting int64
	for _, p := range answer.Topics[a.topic] {
		number := int32(p.Partition)
		if p.Error != nil {
			return backlogSample{}, p.Error
		}
		// deliver says what is done behind a record that takes long, and which
		// wait to be tried again: those hold up nobody.
		ahead, parked := deliver.Ahead(p.CommittedOffset, p.Metadata)
		// Nothing committed is the start of the log, as is what retention took.
		sample.done[number] = max(p.CommittedOffset, starts[number]) + ahead
		waiting += parked
	}
	for number, end := range ends {
		sample.backlog += max(end-sample.done[number], 0)
	}
	sample.backlog = max(sample.backlog-waiting-atOnce, 0)
	return sample, nil
}

// atOnce returns how many requests the group begins as soon as they come, so that
// they do not wait: what this process tries at once now, and as many for every
// other member. Where it delivers nothing, each member counts as one, since a worker
// has one request at least.
//
// What others try at once is not known. If it is less than assumed, as many requests
// more are taken as they would take; if it is more, requests that are being tried
// count as waiting, and some may be turned away that would not have waited. A group
// whose members are not known is an error, and then nobody is turned away.
func (a *admission) atOnce(ctx context.Context, client *broker.Client, topic broker.Topic) (int64, error) {
	found, err := client.Coordinators(ctx, []string{a.group})
	coordinator, ok := found[a.group]
	if !ok {
		return 0, err
	}
	members := 0
	for _, group := range client.Groups(ctx, coordinator, []string{a.group}) {
		if group.Err != nil {
			return 0, group.Err
		}
		members += working(group, topic)
	}
	if a.delivery == nil {
		return int64(members), nil
	}
	// It is a member itself, also while the coordinator does not say so.
	return int64(max(members, 1)) * int64(a.delivery.current()), nil
}

// working counts the members of a group that have partitions of a topic, or all
// of them where it is not told what they have.
func working(group broker.DescribedGroup, topic broker.Topic) int {
	n := 0
	for _, member := range group.Members {
		if slices.ContainsFunc(member.Assigned, func(has broker.Assigned) bool {
			return len(has.Partitions) > 0 && (has.Topic == topic.Name || has.ID == topic.ID && has.Topic == "")
		}) {
			n++
		}
	}
	if n == 0 || !group.Stable {
		return len(group.Members)
	}
	return n
}

// add adds a sample and gives how long the backlog takes at the pace of the last
// ones. Where nothing moves it takes at least as long as that has been so.
func (a *admission) add(s backlogSample) time.Duration {
	if n := len(a.samples); n == 0 || s.backlog == 0 || between(a.samples[n-1], s) > 0 {
		a.moved = s.at
	}
	a.samples = append(a.samples, s)
	for len(a.samples) > 2 && s.at.Sub(a.samples[0].at) > paceOver {
		a.samples = a.samples[1:]
	}
	if s.backlog == 0 {
		return 0
	}
	first := a.samples[0]
	if n := between(first, s); n > 0 {
		return time.Duration(float64(s.backlog) / float64(n) * float64(s.at.Sub(first.at)))
	}
	return s.at.Sub(a.moved)
}

// between counts what was done between two samples, on the partitions that
// are in both.
func between(before, after backlogSample) int64 {
	var n int64
	for number, now := range after.done {
		if was, ok := before.done[number]; ok {
			n += max(now-was, 0)
		}
	}
	return n
}
