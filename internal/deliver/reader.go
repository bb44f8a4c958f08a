package deliver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	// fetchWait is how long a broker holds a fetch while there is nothing new.
	fetchWait = time.Second
	// fetchBriefly is the same while some partitions are left out of the fetch
	// because enough of them is in memory: they should not wait for the others.
	fetchBriefly = 50 * time.Millisecond
	// fetchBytes bounds one answer.
	fetchBytes = 4 << 20
	// lookInterval is how often the topic is looked at for what no error tells of.
	lookInterval = 5 * time.Second
	// rest is how long a partition that gave an error is left alone.
	rest = time.Second
)

// reader reads the partitions of this member into its queue: one fetch at a time
// for each broker that leads some of them.
type reader struct {
	d *Delivery
	// stale holds one wish to look who leads what, regroup one word that the
	// partitions are others.
	stale, regroup chan struct{}

	// assigning guards is and starts, and is held around the queue's lock.
	assigning sync.Mutex
	is        broker.Topic
	// starts are the partitions to read.
	starts map[int32]*start

	mu sync.Mutex
	// wakes hold a word each that there may be room again.
	wakes map[int32]chan struct{}
	// resting are the partitions that gave an error, until when.
	resting map[int32]time.Time
	// stretches tell under which leaders what was read of a partition was written.
	stretches map[int32][]stretch
}

func newReader(d *Delivery) *reader {
	return &reader{
		d: d, stale: make(chan struct{}, 1), regroup: make(chan struct{}, 1), starts: make(map[int32]*start),
		wakes: make(map[int32]chan struct{}), resting: make(map[int32]time.Time), stretches: make(map[int32][]stretch),
	}
}

// topic gives the topic as it is known; without a name before the group was joined.
func (r *reader) topic() broker.Topic {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	return r.is
}

// assign has partitions be read, from where the group has committed.
func (r *reader) assign(topic broker.Topic, tenure uint64, numbers []int32) {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	if len(numbers) > 0 || !slices.Equal(topic.Leaders, r.is.Leaders) || topic.ID != r.is.ID {
		signal(r.regroup)
	}
	r.is = topic
	for _, number := range numbers {
		r.starts[number] = &start{tenure: tenure}
		r.forget(number)
	}
}

// revoke has partitions not be read any more. After it none of them is given to
// the queue.
func (r *reader) revoke(numbers []int32) {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	for _, number := range numbers {
		delete(r.starts, number)
		signal(r.regroup)
	}
}

// wake says that there may be room again.
func (r *reader) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.wakes {
		signal(c)
	}
}

// run reads until ctx ends.
func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		reading, stop := context.WithCancel(ctx)
		var working sync.WaitGroup
		topic, led := r.led()
		for leader, starts := range led {
			working.Go(func() { r.read(reading, topic, leader, starts) })
		}
		r.look(ctx, topic)
		stop()
		working.Wait()
	}
}

// led gives the partitions to read, by the broker that leads them.
func (r *reader) led() (broker.Topic, map[int32]map[int32]*start) {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	led := make(map[int32]map[int32]*start)
	for number, s := range r.starts {
		if int(number) >= len(r.is.Leaders) || r.is.Leaders[number] < 0 {
			continue
		}
		leader := r.is.Leaders[number]
		if led[leader] == nil {
			led[leader] = make(map[int32]*start)
		}
		led[leader][number] = s
	}
	return r.is, led
}

// look waits until there are other partitions to read, or the topic is led
// otherwise. When it has other partitions, or is another one, it has the group
// share them out anew.
func (r *reader) look(ctx context.Context, was broker.Topic) {
	var pause backoff.Backoff
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.regroup:
			return
		case <-tick.C:
		case <-r.stale:
			if !pause.Sleep(ctx) {
				return
			}
		}
		if was.Name == "" {
			continue // nothing is assigned yet
		}
		is, err := r.d.topic(ctx)
		switch {
		case err != nil:
			signal(r.stale)
		case is.ID != was.ID || is.Partitions() != was.Partitions():
			r.d.log.Info("topic is another one or has other partitions", r.d.fields(zap.Int32("before", was.Partitions()), zap.Int32("now", is.Partitions()))...)
			r.d.member.Rejoin()
		case !slices.Equal(is.Leaders, was.Leaders):
			r.assigning.Lock()
			if r.is.ID == is.ID {
				r.is = is
			}
			r.assigning.Unlock()
			return
		}
	}
}

// read fetches what one broker leads. Partitions that have just come are made
// ready beside that: to read what was done in them may take seconds, in which
// those that were there before go on.
func (r *reader) read(ctx context.Context, topic broker.Topic, leader int32, starts map[int32]*start) {
	wake := make(chan struct{}, 1)
	r.mu.Lock()
	r.wakes[leader] = wake
	r.mu.Unlock()
	numbers := slices.Sorted(maps.Keys(starts))
	var starting sync.WaitGroup
	defer starting.Wait()
	starting.Go(func() { r.makeReady(ctx, topic, leader, numbers, starts) })
	var pause backoff.Backoff
	for round := 0; ctx.Err() == nil; round++ {
		q := r.request(topic, leader, r.readable(numbers, starts), round)
		if len(q.From) == 0 {
			r.await(ctx, wake)
			continue
		}
		got, err := r.d.config.Broker.Fetch(ctx, q)
		if err != nil {
			if ctx.Err() == nil {
				r.d.log.Debug("fetch of requests failed", r.d.fields(zap.Int32("broker", leader), zap.Error(err))...)
				signal(r.stale)
				pause.Sleep(ctx)
			}
			continue
		}
		pause.Reset()
		for i := range got {
			r.take(topic, &got[i], q.From)
		}
	}
}

// readable gives the partitions that can be read now or later.
func (r *reader) readable(numbers []int32, starts map[int32]*start) []int32 {
	r.assigning.Lock()
	defer r.assigning.Unlock()
	return slices.DeleteFunc(slices.Clone(numbers), func(number int32) bool { return starts[number].unreadable })
}

// makeReady makes partitions ready. A broker may not know yet that it leads, and a
// connection may break: what is not ready is tried again. Should another lead by
// now, ctx ends.
func (r *reader) makeReady(ctx context.Context, topic broker.Topic, leader int32, numbers []int32, starts map[int32]*start) {
	unready := slices.DeleteFunc(slices.Clone(numbers), func(number int32) bool { return starts[number].ready })
	var pause backoff.Backoff
	for len(unready) > 0 {
		unready = r.ready(ctx, topic, leader, unready, starts)
		if len(unready) > 0 {
			signal(r.stale)
			if !pause.Sleep(ctx) {
				return
			}
		}
	}
}

// readyAtOnce is how many partitions are made ready at once. Each may have
// fetchBytes in memory.
const readyAtOnce = 8

// ready makes partitions ready side by side, since for each some megabytes of its
// log are read, and gives those that are not.
func (r *reader) ready(ctx context.Context, topic broker.Topic, leader int32, numbers []int32, starts map[int32]*start) (unready []int32) {
	if !r.committed(ctx, numbers, starts) {
		return numbers
	}
	places := make(chan struct{}, readyAtOnce)
	var working sync.WaitGroup
	var mu sync.Mutex
	for _, number := range numbers {
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			if !r.start(ctx, topic, leader, number, starts[number]) {
				mu.Lock()
				defer mu.Unlock()
				unready = append(unready, number)
			}
		})
	}
	working.Wait()
	return unready
}

// await waits until there may be something to fetch.
func (r *reader) await(ctx context.Context, wake <-chan struct{}) {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// request lists what to fetch. The list begins elsewhere each round: a broker
// fills its answer in the order of the request, and a busy partition must not
// starve those after it.
func (r *reader) request(topic broker.Topic, leader int32, numbers []int32, round int) broker.FetchRequest {
	q := broker.FetchRequest{Leader: leader, MaxWait: fetchWait, MaxBytes: fetchBytes}
	for i := range numbers {
		number := numbers[(i+round)%len(numbers)]
		from, ok := r.d.queue.wanted(number)
		if !ok || r.rests(number) {
			q.MaxWait = fetchBriefly
			continue
		}
		q.From = append(q.From, broker.FetchFrom{Topic: topic.Name, ID: topic.ID, Partition: number, Offset: from, After: r.after(number)})
	}
	return q
}

// take puts what a partition gave into the queue.
func (r *reader) take(topic broker.Topic, got *broker.Fetched, asked []broker.FetchFrom) {
	err := got.Err
	var cut *broker.CutError
	switch {
	case err == nil, errors.Is(err, broker.ErrBatchTooLarge):
		if err != nil {
			r.d.log.Error("records left out: nobody can read them", r.d.fields(zap.Int32("partition", got.Partition), zap.Error(err))...)
		}
		if i := slices.IndexFunc(asked, func(f broker.FetchFrom) bool { return f.Partition == got.Partition }); i >= 0 {
			r.heed(got, asked[i].Offset)
		}
		r.d.queue.put(got.Partition, got.Records, got.Next)
		return
	case errors.As(err, &cut):
		r.cutOff(got.Partition, cut.At)
	case errors.Is(err, kafka.NotLeaderForPartition), errors.Is(err, kafka.LeaderNotAvailable), errors.Is(err, kafka.UnknownTopicOrPartition),
		errors.Is(err, kafka.ReplicaNotAvailable), errors.Is(err, kafka.FencedLeaderEpoch), errors.Is(err, kafka.UnknownLeaderEpoch):
	case errors.Is(err, broker.ErrUnknownTopicID), errors.Is(err, broker.ErrInconsistentTopicID):
	case errors.Is(err, kafka.OffsetOutOfRange):
		r.reposition(topic, got.Partition)
	default:
		// Anything else may pass, or be a batch that nobody can read. Skipping
		// it would lose requests without a word, so the partition stands and says why.
		r.d.log.Error("partition of requests cannot be read", r.d.fields(zap.Int32("partition", got.Partition), zap.Error(err))...)
	}
	r.mu.Lock()
	r.resting[got.Partition] = time.Now().Add(rest)
	r.mu.Unlock()
	signal(r.stale)
}

func (r *reader) rests(number int32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.resting[number]
	if ok && !time.Now().Before(until) {
		delete(r.resting, number)
		ok = false
	}
	return ok
}

// reposition finds out what became of the log at the offset that was asked for:
// retention took what was there, or the log was cut off by brokers that lost it.
func (r *reader) reposition(topic broker.Topic, number int32) {
	ctx, cancel := context.WithTimeout(context.Background(), rest)
	defer cancel()
	first, last, err := r.d.bounds(ctx, topic, number)
	if err != nil {
		r.d.log.Debug("ends of a log not known", r.d.fields(zap.Int32("partition", number), zap.Error(err))...)
		return
	}
	fields := r.d.fields(zap.Int32("partition", number), zap.Int64("log_start", first), zap.Int64("log_end", last))
	switch behind, beyond := r.d.queue.move(number, first, last); {
	case behind:
		r.d.log.Error(goneText, fields...)
	case beyond:
		r.d.log.Error(shortText, fields...)
		r.forget(number)
	}
}

// What the log says where the topic's does not hold what it should.
const (
	goneText = "requests are gone from the topic before they were done: its retention is shorter than they had to wait; " +
		"raise retention.ms or retention.bytes of the topic, or deliver faster"
	shortText = "topic ends before what was read of it: brokers have lost its end and requests that they had confirmed, or it was made again; " +
		"unclean.leader.election.enable=false on the topic and a replication factor of 3 keep them from it"
)
