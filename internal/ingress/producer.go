// Package ingress puts records on Kafka topics for many callers at once. Each
// call to [Producer.Produce] returns when the broker has its record, or with
// an error that says whether it may have it.
//
// Records that come while a call to the broker is under way travel together in
// the next one (group commit). There is no linger: a record that finds no call
// under way goes at once, and waiting for the call before is all the batching
// there is, for a few milliseconds at most; then a second call goes out. Records
// without a place share one queue a topic, and each call takes whatever waits
// there onto the next free partition as one batch; placed records wait for their
// partition.
//
// Batches are idempotent: a producer id, an epoch and a sequence in each let
// the broker recognise one that it already has, so that an unanswered batch can
// be sent again, byte for byte, and is neither doubled nor overtaken by its
// successor. DESIGN.md beside this file has the states and what they cost.
//
// # Concurrency
//
// A Producer is safe for use by many goroutines. A topic's queues and batches
// are under the topic's mutex, and there is no second lock to order. A sender
// encodes its batches without the mutex, since nobody else has them then.
// Calls to the broker are made without the mutex, by at most two senders a
// topic and leader, which end when there is nothing to send.
//
// # What it does not do
//
// It does not compress, and knows no transactions. It gives up after the
// caller's timeout, and leaves the decision to repeat to whoever asked. It
// creates topics only through the function that it is given for that.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	defaultMaxQueue      = 10_000
	defaultMaxQueueBytes = 64 << 20
	defaultTimeout       = 10 * time.Second

	// closeGrace is how long Close waits for answers that are outstanding.
	closeGrace = 5 * time.Second
	// verdictGrace is how long a caller whose own deadline has come waits for
	// the verdict that the same deadline brings to its batch.
	verdictGrace = 100 * time.Millisecond
)

// Config configures a Producer. Only Broker is required.
type Config struct {
	// Broker reaches the cluster.
	Broker *broker.Client

	// Ensure finds a topic, and may create it. Nil means Broker.Topic, which
	// creates none.
	Ensure func(ctx context.Context, topic string) (broker.Topic, error)

	// MaxQueue bounds the records of one topic that wait or are in flight, so
	// that a topic that stands still does not refuse the records of another.
	// Default: 10,000.
	MaxQueue int

	// MaxQueueBytes bounds their encoded size together, in bytes, for each
	// topic. Memory use is up to three times this: a record is copied into its
	// batch, and the batch into the request. Default: 64 MiB.
	MaxQueueBytes int

	// Logger gets what an operator should know: batches given up, producer ids
	// renewed, topics recreated. Nil: nobody.
	Logger *zap.Logger
}

// Producer puts records on topics. Make one a cluster with New.
type Producer struct {
	config Config
	logger *zap.Logger

	ctx    context.Context // ends when Close stops waiting for answers
	cancel context.CancelFunc
	work   sync.WaitGroup // senders, retries and look-ups

	topics  sync.Map  // name → *topic
	entries sync.Pool // of *entry; not shared by producers, since a channel stays in the synctest bubble that made it

	mu     sync.Mutex // guards closed, and with it the making of topics
	closed bool
}

// New makes a Producer. It sends nothing before the first record.
func New(c Config) *Producer {
	if c.Ensure == nil {
		c.Ensure = c.Broker.Topic
	}
	if c.MaxQueue <= 0 {
		c.MaxQueue = defaultMaxQueue
	}
	if c.MaxQueueBytes <= 0 {
		c.MaxQueueBytes = defaultMaxQueueBytes
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	p := &Producer{config: c, logger: c.Logger}
	p.entries.New = newEntry
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Request is a record and where it should go.
type Request struct {
	// Topic is the topic's name.
	Topic string

	// Record is the record. Its bytes may be used again once Produce returns.
	Record record.Record

	// Partition is the partition that the record goes to, whatever its key and
	// PlaceBy; one that the topic does not have is ErrRefused, once a broker
	// has said so. Nil leaves it to them.
	Partition *int32

	// PlaceBy decides the partition, by murmur2 as Java's producer does it.
	// Nil means the record's key; with neither, the record goes wherever there
	// is room.
	PlaceBy []byte

	// Timeout bounds the wait for the broker's answer. Default: 10 s.
	Timeout time.Duration
}

// Ack says where the broker put a record.
type Ack struct {
	Partition int32
	Offset    int64
	// Incarnation tells the topic from another one of the same name, before or
	// after it; 0 where the broker does not tell.
	Incarnation uint32
}

// Produce puts a record on its topic and returns when all in-sync replicas
// have it. The error is one of this package's, or wraps one of them, and says
// whether the record may be on the topic all the same (ErrUnclear) or is
// surely not (all others).
//
// When ctx ends first, a record that still waits is taken back; one that is
// in flight goes on, and Produce returns ErrUnclear.
func (p *Producer) Produce(ctx context.Context, r Request) (Ack, error) {
	t, err := p.topic(r.Topic)
	if err != nil {
		return Ack{}, err
	}
	e := p.entries.Get().(*entry)
	e.load(r)
	if e.size > p.config.MaxQueueBytes {
		p.release(e)
		return Ack{}, fmt.Errorf("topic %q: %w: %d bytes, and the queue holds %d", r.Topic, ErrTooLarge, len(e.tail), p.config.MaxQueueBytes)
	}
	if err := t.put(e); err != nil {
		p.release(e)
		return Ack{}, err
	}
	select {
	case verdict := <-e.done:
		p.release(e)
		return verdict.ack, verdict.err
	case <-ctx.Done():
		return t.leave(ctx, e)
	}
}

// leave ends the wait of a caller whose context has ended.
func (t *topic) leave(ctx context.Context, e *entry) (Ack, error) {
	if t.withdraw(e) {
		t.p.release(e)
		return Ack{}, fmt.Errorf("topic %q: %w: the caller left while its record waited: %w", t.name, ErrUnavailable, context.Cause(ctx))
	}
	// The record is in flight, or its verdict is on the way. From here on the
	// entry belongs to the sender, which must always find room in its channel:
	// it does not go back to the pool unless the verdict is there.
	var grace time.Duration
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		grace = verdictGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case verdict := <-e.done:
		t.p.release(e)
		return verdict.ack, verdict.err
	case <-timer.C:
	}
	return Ack{}, fmt.Errorf("topic %q: %w: the caller left while its record was in flight: %w", t.name, ErrUnclear, context.Cause(ctx))
}

// topic gives the state of a topic, new if it is the first record for it.
func (p *Producer) topic(name string) (*topic, error) {
	if t, ok := p.topics.Load(name); ok {
		return t.(*topic), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("topic %q: %w", name, ErrClosed)
	}
	t, _ := p.topics.LoadOrStore(name, newTopic(p, name))
	return t.(*topic), nil
}

// Close refuses the records that wait, with ErrClosed, and waits for the
// answers to those that are in flight, for five seconds at most; what is not
// answered by then is ErrUnclear. All goroutines have ended when it returns.
func (p *Producer) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.topics.Range(func(_, t any) bool { t.(*topic).close(); return true })

	grace := time.AfterFunc(closeGrace, p.cancel)
	p.work.Wait()
	grace.Stop()
	p.cancel()
	p.topics.Range(func(_, t any) bool { t.(*topic).disarm(); return true })
}

// pause waits, and tells whether the whole time has passed before the
// producer stopped.
func (p *Producer) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}
