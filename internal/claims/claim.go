package claims

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Why a request is neither queued nor given another one's stream. After each of
// these nothing has been queued for it.
var (
	// ErrReused: the key was claimed for another request.
	ErrReused = errors.New("the idempotency key was used with another request; give each request its own")
	// ErrPending: the same request is being queued elsewhere and not there yet.
	ErrPending = errors.New("another request with this idempotency key is being queued; repeat it a little later")
	// ErrNotRead: what was claimed before this gateway came was not known in time.
	ErrNotRead = errors.New("the claims topic has not been read yet; repeat the request a little later")
	// ErrFull: there are more live claims than a gateway keeps, so that what is
	// not among those kept may all the same be claimed.
	ErrFull = errors.New("more idempotency keys are in use than the gateway keeps; shorten the window")
	// ErrUnwritten: the claim could not be written, or not be read again. Wraps the cause.
	ErrUnwritten = errors.New("the claim on the idempotency key could not be settled")
)

const (
	// turnTime is how much of a request's time has to be left for taking up what
	// another one has left behind.
	turnTime = time.Second
	// recheck is how long a claim that came to nothing waits before the next, if
	// nothing happens that it waits for: the log's clock may be behind.
	recheck = 500 * time.Millisecond
	// maxClaims bounds the claims of one request.
	maxClaims = 16
)

// Claim is what a request says of itself.
type Claim struct {
	// Marks stand for it under every secret of the gateway, in any order; at
	// least one, at most MaxMarks.
	Marks []Mark
	// Place decides the partition, by murmur2. It depends on who asks and the key
	// that they gave, and on no secret.
	Place []byte
	// Stream is the stream that the request gets if it is the first. Its id is
	// new: the claim is known by it.
	Stream Stream
	// Until is when the window ends in which repeats get the same stream.
	Until time.Time
}

// Verdict is what a claim came to.
type Verdict struct {
	// Stream is the stream that the request gets.
	Stream Stream
	// Request is where the request lies, once it is queued.
	Request Position
	// Turn is not nil for the one who is to queue the request, with Stream's id.
	Turn *Turn
}

// Turn is the right to queue a request. Whoever has it ends it with Note or Revoke.
type Turn struct {
	book   *Book
	key    [16]byte
	place  []byte
	stream string
	holder string
}

// Claim finds out what a request is to get: a turn to be queued, or the stream
// of the request that was first with its key. It waits until the book has read
// what was claimed before, and for a request that is being queued. It has to be given a context with a deadline, which is also when the
// request itself is given up. The error wraps one of this package's.
func (b *Book) Claim(ctx context.Context, c Claim) (Verdict, error) {
	mine := claim{marks: c.Marks, stream: c.Stream, until: c.Until.UnixMilli()}
	deadline, _ := ctx.Deadline()
	claimed := false
	for range maxClaims {
		// What is known may settle it without a claim.
		v, settled, err := b.foresee(ctx, c, claimed)
		if err != nil || settled {
			return v, err
		}
		mine.patience = time.Until(deadline).Milliseconds()
		at, err := b.config.Produce(ctx, c.Place, mine.record())
		if err != nil {
			return Verdict{}, fmt.Errorf("%w: write claim: %w", ErrUnwritten, err)
		}
		claimed = true
		if err := b.await(ctx, at); err != nil {
			b.giveUp(ctx, c)
			return Verdict{}, fmt.Errorf("%w: read claims up to partition %d, offset %d: %w", ErrUnwritten, at.Partition, at.Offset, err)
		}
		switch now := b.look(c.Marks); {
		case now.entry == nil && now.full:
			return Verdict{}, ErrFull
		case now.entry == nil: // whoever was first has revoked it since
		case now.entry.holder == c.Stream.ID && !now.entry.noted:
			return now.turn(b, c), nil
		case !now.same:
			return Verdict{}, ErrReused
		case now.entry.noted:
			return now.follow(), nil
		}
	}
	return Verdict{}, ErrPending
}

// foresee tells whether a verdict needs no claim, because the key's request is
// noted, and gives it. While that request is being queued it waits.
func (b *Book) foresee(ctx context.Context, c Claim, claimed bool) (v Verdict, settled bool, err error) {
	for {
		if err := b.awaitRead(ctx); err != nil {
			return v, false, fmt.Errorf("%w: %w", ErrNotRead, err)
		}
		now := b.look(c.Marks)
		e := now.entry
		at := time.Now().UnixMilli()
		switch {
		case e == nil && now.full:
			return v, false, ErrFull
		case e == nil || at >= e.until:
			return v, false, nil
		case e.noted && now.same:
			return now.follow(), true, nil
		case e.noted:
			return v, false, ErrReused
		case !now.same && !claimed:
			return v, false, nil // it may have been revoked: the log tells
		}
		rest := time.Duration(e.deadline-at) * time.Millisecond
		if claimed {
			rest = max(rest, recheck) // the log's clock saw it otherwise than ours
		}
		if rest <= 0 {
			if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < turnTime {
				return v, false, ErrPending
			}
			return v, false, nil
		}
		if err := b.wait(ctx, now.news, rest); err != nil {
			return v, false, fmt.Errorf("%w: %w", ErrPending, err)
		}
		claimed = false
	}
}

// Known reports whether a claim on the key is live, so that its request is queued
// or may be. It knows all claims that were in the log when it was called, whichever
// gateway made them, and writes none. Of the marks it needs the keys alone.
func (b *Book) Known(ctx context.Context, marks []Mark, place []byte) (bool, error) {
	if err := b.awaitRead(ctx); err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotRead, err)
	}
	if b.live(marks) {
		return true, nil
	}
	b.mu.Lock()
	topic := b.life.topic
	b.mu.Unlock()
	p := record.Partition(place, topic.Partitions())
	ends, err := b.config.Broker.Offsets(ctx, topic, []int32{p}, broker.HighWatermark)
	if end, ok := ends[p]; ok {
		err = b.await(ctx, Position{Partition: p, Offset: end - 1, Incarnation: topic.ID.Incarnation()})
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrNotRead, err)
	}
	return b.live(marks), nil
}

// live reports whether the table has a live claim on a key.
func (b *Book) live(marks []Mark) bool {
	e := b.look(marks).entry
	return e != nil && time.Now().UnixMilli() < e.until
}

// sight is what the table says of a key at one moment.
type sight struct {
	entry *entry // a copy; nil where the key is free
	same  bool   // it was claimed for the same request
	full  bool   // the table may not know all of them
	news  <-chan struct{}
}

func (b *Book) look(marks []Mark) sight {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := sight{full: b.table.count >= b.table.max || time.Now().UnixMilli() < b.table.blindUntil}
	if e, same := b.table.find(marks); e != nil {
		copied := *e
		s.entry, s.same = &copied, same
		s.news = b.life.over
		if int(e.partition) < len(b.life.partitions) {
			s.news = b.life.partitions[e.partition].news
		}
	}
	return s
}

func (s sight) follow() Verdict {
	return Verdict{Stream: s.entry.stream, Request: s.entry.request}
}

func (s sight) turn(b *Book, c Claim) Verdict {
	e := s.entry
	return Verdict{Stream: e.stream, Turn: &Turn{book: b, key: e.marks[0].Key, place: c.Place, stream: e.stream.ID, holder: c.Stream.ID}}
}

// giveUpTime bounds the writing of a revocation whose request has no time left.
const giveUpTime = 2 * time.Second

// giveUp revokes a claim of which nobody knows what it came to.
func (b *Book) giveUp(ctx context.Context, c Claim) {
	t := Turn{book: b, key: c.Marks[0].Key, place: c.Place, holder: c.Stream.ID}
	_ = t.Revoke(ctx) // without it the next repeat waits until the claim has had its time
}

// Note ends a turn: the request is queued, and lies there. A repeat that comes
// before the note is written waits for it; without one, it queues the request
// again once the claim has had its time, under the same stream id.
func (t *Turn) Note(ctx context.Context, request Position) error {
	n := note{stream: t.stream, request: request}
	if err := t.write(ctx, n.record(t.key)); err != nil {
		return fmt.Errorf("write note: %w", err)
	}
	// It is in the log, and nothing can come before it there that changes what it
	// says: a repeat at this gateway need not wait until it has been read.
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	t.book.table.apply(0, 0, t.key[:], n)
	return nil
}

// Revoke ends a turn: the request is not queued, nor will it be. The key is
// free again, unless another gateway may have queued the request before.
func (t *Turn) Revoke(ctx context.Context) error {
	if err := t.write(ctx, revoke{holder: t.holder}.record(t.key)); err != nil {
		return fmt.Errorf("write revocation: %w", err)
	}
	return nil
}

// write puts a record on the topic. The request may have used up its time, and
// its client may be gone: what became of it has to be told all the same.
func (t *Turn) write(ctx context.Context, r record.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpTime)
	defer cancel()
	_, err := t.book.config.Produce(ctx, t.place, r)
	return err
}
