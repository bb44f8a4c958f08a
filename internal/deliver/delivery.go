package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Defaults of Options and Config.
const (
	DefaultAttempts     = 10
	DefaultBackoffLeast = time.Second
	DefaultBackoffMost  = time.Minute
	DefaultTimeout      = 5 * time.Minute
	DefaultDrain        = 25 * time.Second
	DefaultMaxResponse  = 64 << 20
	defaultMaxBytes     = 64 << 20
)

// ErrTooLarge is what a Producer wraps when the broker takes no record of that
// size, so that sending it again is of no use.
var ErrTooLarge = errors.New("the record is larger than the broker takes")

// ErrRefused is what a Producer wraps when the broker refuses a record, and would
// do so again: it may not write to the topic, or the topic's name cannot be one.
var ErrRefused = errors.New("the broker refuses the record")

// Producer puts records on topics.
type Producer interface {
	// Produce returns when the broker has the record. A partition of -1 leaves
	// the place to the record's key. The context bounds the wait.
	Produce(ctx context.Context, topic string, partition int32, r record.Record) error
}

// Config says what is delivered, and with what. It does not change.
type Config struct {
	Broker   *broker.Client
	Producer Producer
	// Topic is read in the consumer group Group.
	Topic, Group string
	// Control is the topic of cancellations; "" for none.
	Control string
	// MaxBytes bounds the records held in memory. Default: 64 MiB.
	MaxBytes int64
	Logger   *zap.Logger
}

// Options say how. They may change while deliveries go on.
type Options struct {
	// Handler answers the requests.
	Handler Handler
	// Attempts is how often a request is tried before it is given up.
	Attempts int
	// BackoffMin is the pause after the first failed try. It doubles with each
	// up to BackoffMax.
	BackoffMin, BackoffMax time.Duration
	// Timeout bounds one try.
	Timeout time.Duration
	// Concurrency is how many tries run at once, while no scaler has a word in it.
	Concurrency int
	// DeadLetter is the topic for what was given up; "" keeps none of it.
	DeadLetter string
	// MaxResponse bounds a response, in bytes.
	MaxResponse int64
	// Drain is how long tries that run may go on once this process leaves the group.
	Drain time.Duration
	// RetryStarted has a request tried again also when a part of its response
	// is on its way already; the client then gets it from the start once more.
	RetryStarted bool
}

// Delivery is a member of a consumer group that has each record of a topic
// answered by a handler.
type Delivery struct {
	config Config
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	current atomic.Pointer[Options]
	control *control
	work    work
	// silence is how long answers take to begin.
	silence work

	member    *broker.Membership
	queue     *queue
	committer *committer
	reader    *reader
	handovers *handovers
	windows   *windows

	// leaving is closed when the group is left.
	leaving chan struct{}
	close   sync.Once

	mu sync.Mutex
	// scaled is the concurrency that a scaler has set, 0 where none has.
	scaled int
}

// New begins to deliver. It waits for nothing: neither the broker nor the topic
// need be there yet.
func New(c Config, o Options) *Delivery {
	if c.MaxBytes <= 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	d := &Delivery{config: c, log: c.Logger, done: make(chan struct{}), leaving: make(chan struct{}), control: newControl(), windows: newWindows(remembered)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.current.Store(&o)
	d.handovers = newHandovers(d)
	d.queue = newQueue(d.concurrency(), c.MaxBytes, d.begin, d.changed)
	d.queue.run, d.queue.ended = d.handovers.own, d.handovers.ended
	d.queue.patience = d.patience
	d.committer = newCommitter(d.queue, d.send, d.uncommitted)
	d.queue.claim = d.committer.hurry
	d.reader = newReader(d)
	d.member = d.join()
	go func() {
		defer close(d.done)
		d.run()
	}()
	return d
}

// run does all that goes on beside the membership, until Close has ended it.
func (d *Delivery) run() {
	var working sync.WaitGroup
	defer d.windows.keep(nil)
	defer working.Wait()
	if d.config.Control != "" {
		working.Go(func() { d.follow(d.ctx) })
		working.Go(func() { d.handovers.signs(d.ctx) })
		working.Go(func() { d.handovers.watch(d.ctx) })
	} else {
		d.control.ready()
	}
	working.Go(func() { d.committer.run(d.ctx) })
	d.control.await(d.ctx)
	d.reader.run(d.ctx)
}

// changed is called with the queue's lock held.
func (d *Delivery) changed() {
	d.committer.notify()
	d.reader.wake()
}

// begin starts a try. It is called with the queue's lock held.
func (d *Delivery) begin(j *job) { go d.try(j) }

// Use changes the options. Tries that run go on with those they began with.
func (d *Delivery) Use(o Options) {
	d.current.Store(&o)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit()
}

func (d *Delivery) options() Options { return *d.current.Load() }

// Close leaves the group at once, so that others go on with its partitions, and
// lets the tries that run end for as long as Options.Drain says. What is left then
// is cut short: who has the partition next tries it again, or ends its stream as
// failed if half an answer is out.
func (d *Delivery) Close() {
	d.close.Do(func() {
		close(d.leaving)
		drained, stop := context.WithTimeout(context.Background(), d.options().Drain)
		defer stop()
		leaving, cancel := context.WithTimeout(context.Background(), d.options().Drain+lastTry+lastCommit)
		d.member.Leave(leaving)
		cancel()
		// What is held still could not be given up, and is lost.
		d.queue.drop(d.queue.owned(), errLost)
		if !d.handovers.await(drained) {
			d.log.Warn("drain has passed; tries that still run are cut short", d.fields(zap.Duration("drain", d.options().Drain))...)
		}
		d.queue.cancelHanded(errDrained)
		last, cancel := context.WithTimeout(context.Background(), lastTry)
		defer cancel()
		if !d.queue.awaitLeft(last) || !d.handovers.await(last) {
			// A handler that does not mind its context cannot be ended.
			d.log.Error("tries go on although they were cancelled", d.fields()...)
		}
		d.cancel()
	})
	<-d.done
}

// closing reports whether Close was called.
func (d *Delivery) closing() bool {
	select {
	case <-d.leaving:
		return true
	default:
		return false
	}
}

// topic asks for the topic.
func (d *Delivery) topic(ctx context.Context) (broker.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	return d.config.Broker.Topic(ctx, d.config.Topic)
}

// bounds gives the first offset of a partition's log, and the one after its last.
func (d *Delivery) bounds(ctx context.Context, topic broker.Topic, number int32) (first, last int64, err error) {
	for _, end := range []struct {
		at     int64
		offset *int64
	}{{broker.LogStart, &first}, {broker.HighWatermark, &last}} {
		offsets, err := d.config.Broker.Offsets(ctx, topic, []int32{number}, end.at)
		offset, ok := offsets[number]
		if !ok {
			return 0, 0, fmt.Errorf("ends of partition %d: %w", number, err)
		}
		*end.offset = offset
	}
	return first, last, nil
}
