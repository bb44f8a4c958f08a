package claims

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Topic is the claims topic.
const Topic = "osmosis.idempotency"

// defaultMax is the default of Config.Max.
const defaultMax = 1_000_000

// Config says what a Book reads and how it writes.
type Config struct {
	// Broker reads the claims topic, and makes it.
	Broker *broker.Client

	// Produce puts a record on the claims topic, placed by murmur2 of placeBy. It
	// returns when all in-sync replicas have it, or when the context ends.
	Produce func(ctx context.Context, placeBy []byte, r record.Record) (Position, error)

	// Max bounds the live claims that are kept, some 350 bytes each. A log that
	// holds more cannot be judged: see ErrFull. Default: 1,000,000.
	Max int

	// Logger gets what an operator should know. Nil: nobody.
	Logger *zap.Logger
}

// Book is a gateway's copy of the claims topic.
type Book struct {
	config Config
	log    *zap.Logger

	ctx    context.Context // ends when the book is closed
	cancel context.CancelFunc
	work   sync.WaitGroup
	begin  sync.Once

	mu     sync.Mutex
	table  *table
	life   *life
	spec   broker.TopicSpec // of the topic, for when it is missing
	create bool             // whether it is then made
}

// New makes a Book. It asks nobody for anything before Start.
func New(c Config) *Book {
	if c.Max <= 0 {
		c.Max = defaultMax
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	b := &Book{config: c, log: c.Logger, table: newTable(c.Max), life: newLife(broker.Topic{})}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Start begins to read. The spec describes the topic for when it is missing;
// with create it is then made. Later calls only change these two: a configuration
// may allow what the one before did not.
func (b *Book) Start(spec broker.TopicSpec, create bool) {
	b.mu.Lock()
	b.spec, b.create = spec, create
	b.mu.Unlock()
	b.begin.Do(func() { b.work.Go(func() { (&reader{book: b}).run(b.ctx) }) })
}

// wanted gives what the last Start said.
func (b *Book) wanted() (spec broker.TopicSpec, create bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.spec, b.create
}

// Close ends the reading and waits for that. Calls that wait get an error.
func (b *Book) Close() {
	b.cancel()
	b.begin.Do(func() {}) // what has not begun does not begin any more
	b.work.Wait()
}

// life is one incarnation of the topic, and how far it has been read. The book's
// mutex guards it.
type life struct {
	topic      broker.Topic
	partitions []*progress
	over       chan struct{} // closed when another life takes its place
}

// progress is how far a partition has been read.
type progress struct {
	next   int64         // the first offset that is not in the table; unknown before the log's start was asked for
	target int64         // up to where there were records when the reading began; unknown before the first answer
	read   bool          // the target has been reached
	news   chan struct{} // closed and replaced when more has been read
}

const unknown int64 = -1

func newProgress() *progress {
	return &progress{next: unknown, target: unknown, news: make(chan struct{})}
}

func newLife(t broker.Topic) *life {
	l := &life{topic: t, over: make(chan struct{})}
	l.grow(t)
	return l
}

// grow adds the partitions that are new.
func (l *life) grow(t broker.Topic) {
	l.topic = t
	for range int(t.Partitions()) - len(l.partitions) {
		l.partitions = append(l.partitions, newProgress())
	}
}

// unread returns what is closed when more is known of a partition that has not
// been read as far as it went, and nil where all have been.
func (l *life) unread() <-chan struct{} {
	if len(l.partitions) == 0 {
		return l.over
	}
	for _, p := range l.partitions {
		if !p.read {
			return p.news
		}
	}
	return nil
}

// errClosed is why nobody waits for a book that is closed.
var errClosed = errors.New("the book of claims is closed")

// awaitRead waits until all claims have been read that were there when the book
// began to read.
func (b *Book) awaitRead(ctx context.Context) error {
	for {
		b.mu.Lock()
		news, over := b.life.unread(), b.life.over
		b.mu.Unlock()
		if news == nil {
			return nil
		}
		select {
		case <-news:
		case <-over:
		case <-ctx.Done():
			return ctx.Err()
		case <-b.ctx.Done():
			return errClosed
		}
	}
}

// await waits until the record at the position has been read, in the life of
// the topic that it was written to.
func (b *Book) await(ctx context.Context, at Position) error {
	for {
		b.mu.Lock()
		l := b.life
		news := l.over
		if l.topic.ID.Incarnation() == at.Incarnation && int(at.Partition) < len(l.partitions) {
			p := l.partitions[at.Partition]
			if p.next > at.Offset {
				b.mu.Unlock()
				return nil
			}
			news = p.news
		}
		b.mu.Unlock()
		select {
		case <-news:
		case <-l.over:
		case <-ctx.Done():
			return ctx.Err()
		case <-b.ctx.Done():
			return errClosed
		}
	}
}

// Live counts the claims that the book holds.
func (b *Book) Live() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.table.count
}

// wait waits for news of a partition, or as long as said.
func (b *Book) wait(ctx context.Context, news <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-news:
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-b.ctx.Done():
		return errClosed
	}
}
