package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Defaults of Options and Config.
const (
	DefaultAttempts     = 10
	DefaultBackoffLeast = time.Second
	DefaultBackoffMost  = time.Minute
	DefaultTimeout      = 5 * time.Minute
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

	mu sync.Mutex
	// generation is the one that runs; nil between two.
	generation *generation
	// scaled is the concurrency that a scaler has set, 0 where none has.
	scaled int
	// windows outlive generations, so that a rebalance need not read them anew.
	windows map[int32]*window
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
	d := &Delivery{config: c, log: c.Logger, done: make(chan struct{}), control: newControl(), windows: make(map[int32]*window)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.current.Store(&o)
	go func() {
		defer close(d.done)
		var working sync.WaitGroup
		defer working.Wait()
		if c.Control != "" {
			working.Go(func() { d.follow(d.ctx) })
		} else {
			d.control.ready()
		}
		d.run(d.ctx)
	}()
	return d
}

// Use changes the options. Tries that run go on with those they began with.
func (d *Delivery) Use(o Options) {
	d.current.Store(&o)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit()
}

func (d *Delivery) options() Options { return *d.current.Load() }

// Close lets the tries that run end, for a few seconds, commits, and leaves the
// group.
func (d *Delivery) Close() {
	d.cancel()
	<-d.done
}

// run is a member of the group until the context ends. It joins once the topic
// is there. The reader watches for more partitions.
func (d *Delivery) run(ctx context.Context) {
	if _, ok := d.await(ctx); !ok {
		return
	}
	d.config.Broker.Member(ctx, broker.LegacyGroup{
		Group: d.config.Group, Topic: d.config.Topic,
		Session: sessionTimeout, Rebalance: rebalanceTimeout, Heartbeat: heartbeat,
		Leave: leaveTimeout, Logger: d.log,
	}, func(kg *kafka.Generation) {
		kg.Start(func(ctx context.Context) { d.serve(ctx, kg) })
	})
}

// serve is this member's part in one generation of the group.
func (d *Delivery) serve(ctx context.Context, kg *kafka.Generation) {
	topic, ok := d.await(ctx)
	if !ok {
		return
	}
	g := newGeneration(d, kg, topic)
	d.mu.Lock()
	d.generation = g
	d.limit()
	d.mu.Unlock()
	numbers := make([]int, 0, len(kg.Assignments[d.config.Topic]))
	for _, a := range kg.Assignments[d.config.Topic] {
		numbers = append(numbers, a.ID)
	}
	d.forget(numbers)
	d.control.await(ctx)
	d.log.Info("partitions to deliver", g.fields(zap.Ints("partitions", numbers))...)
	g.run(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.generation = nil
	for number, p := range g.queue.partitions {
		d.windows[number].to = p.progress.base // all before it is done, and seen
	}
}

// leaveTimeout is how long leaving the group may take, with all that ends a
// generation before it, until its connections are cut.
const leaveTimeout = drain + lastTry + lastCommit + 2*time.Second

// topic asks for the topic.
func (d *Delivery) topic(ctx context.Context) (broker.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	return d.config.Broker.Topic(ctx, d.config.Topic)
}

// await gives the topic once it is there, false when the context ends first.
func (d *Delivery) await(ctx context.Context) (broker.Topic, bool) {
	var pause backoff.Backoff
	for {
		topic, err := d.topic(ctx)
		if err == nil {
			return topic, true
		}
		if pause.Failures() == 0 && ctx.Err() == nil {
			d.log.Info("topic to deliver is not there yet", zap.String("topic", d.config.Topic), zap.Error(err))
		}
		if !pause.Sleep(ctx) {
			return topic, false
		}
	}
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

// forget drops the windows of partitions that others have now: what those do
// has to be read from the log anyway.
func (d *Delivery) forget(kept []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.windows, func(number int32, _ *window) bool { return !slices.Contains(kept, int(number)) })
}

// window gives what is known of the streams of a partition that are done, in
// this life of the topic.
func (d *Delivery) window(number int32, incarnation uint32) *window {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.windows[number]; w == nil || w.incarnation != incarnation {
		d.windows[number] = newWindow(incarnation)
	}
	return d.windows[number]
}
