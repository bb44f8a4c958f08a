package hub

import (
	"context"
	"sync"
	"time"
)

const (
	// expiryGrace is how long after its expiry a stream can still get a reply
	// that was in time: by so much the clocks of gateway and broker may differ.
	expiryGrace = 5 * time.Second
	// issuedGrace is the same for the time at which a token was made.
	issuedGrace = time.Minute
)

// Stream is what a token says of a stream.
type Stream struct {
	// ID is the stream id, which the replies carry as correlation id.
	ID string
	// Topic, Partition and Partitions say where replies are awaited, and how
	// many partitions the topic had when the token was made.
	Topic      string
	Partition  int32
	Partitions int32
	// Floor is the offset below which no reply lies, in the given incarnation of the topic.
	Floor       int64
	Incarnation uint32
	// Issued is when the token was made, by the gateway's clock.
	Issued time.Time
	// Expires is the last log time at which a reply counts. The zero time is never.
	Expires time.Time
}

// Subscription follows a stream: one client's connection. It has no goroutine
// and no queue of its own. One goroutine at a time may call Next; Close may be
// called beside it.
type Subscription struct {
	hub    *Hub
	stream Stream
	topic  *topic
	bell   *bell
	tick   uint64 // the hub's clock when the subscription began
	expiry *time.Timer

	mu sync.Mutex
	// from is the client's cursor, nil once it was used.
	from    *Cursor
	version uint64 // of the topic, when it was looked at last
	legs    []*leg
	queue   []Event // decided and not yet given
	done    error   // what Next gives when the queue is empty

	caughtUp bool
	// overdue is the hub's clock when the stream was first seen past its
	// expiry; 0 before.
	overdue uint64
}

func newSubscription(h *Hub, s Stream, from *Cursor) *Subscription {
	over := !s.Expires.IsZero() && !time.Now().Before(s.due())
	sub := &Subscription{hub: h, stream: s, bell: newBell(), tick: h.tick()}
	if over {
		// With a later moment a log that is known as of one between the two would
		// be caught up with first, and the stream seem to be open still.
		sub.overdue = sub.tick
	}
	if from != nil {
		c := *from
		sub.from = &c
	}
	if !s.Expires.IsZero() {
		sub.mu.Lock() // the timer may ring before it is set
		sub.expiry = time.AfterFunc(time.Until(s.due()), sub.ring)
		sub.mu.Unlock()
	}
	return sub
}

// due is when the stream has expired for good.
func (s Stream) due() time.Time { return s.Expires.Add(expiryGrace) }

// ring has the subscription look whether its stream has expired. The timer runs
// by another clock than the one that says so, which may have been set back.
func (s *Subscription) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := time.Until(s.stream.due()); d > 0 {
		s.expiry.Reset(d)
	}
	s.bell.ring()
}

// Next gives the stream's next event, and waits for it. After the end it gives
// io.EOF; a client whose cursor says that it has seen the end gets io.EOF at
// once. When subscription or hub are closed it gives ErrClosed, and the
// context's error when that ends; then nothing is lost, and Next can be called
// again.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if e, ok, err := s.Poll(); ok || err != nil {
			return e, err
		}
		select {
		case <-s.bell.wish:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.hub.ctx.Done():
			return Event{}, ErrClosed
		}
	}
}

// Poll is Next without the waiting: it gives false where there is no event now.
// Then whoever waits for one is told, see Notify.
func (s *Subscription) Poll() (Event, bool, error) {
	if s.hub.ctx.Err() != nil {
		return Event{}, false, ErrClosed
	}
	return s.look()
}

// Notify has f called whenever Poll may have something that it had not before,
// for a caller that waits for other things as well and has no goroutine for
// this one. It may be called from anywhere, also while Notify runs and after
// Close, and has to return at once without calling the subscription.
func (s *Subscription) Notify(f func()) { s.bell.call.Store(&f) }

// More tells whether Next has another event at once, so that a caller may write
// both with one call.
func (s *Subscription) More() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == ErrClosed { //nolint:errorlint // set here and nowhere else
		return
	}
	s.done, s.queue = ErrClosed, nil
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.hub.mu.Lock()
	delete(s.topic.subscriptions, s)
	s.hub.open--
	s.hub.mu.Unlock()
	s.detach()
	s.bell.ring()
}

// detach takes the subscription out of its partitions.
func (s *Subscription) detach() {
	for _, l := range s.legs {
		l.reader.detach()
	}
	s.legs = nil
}

// look gives an event if there is one now. If not, something that wakes the
// subscription has been arranged for.
func (s *Subscription) look() (Event, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if len(s.queue) > 0 {
			e := s.queue[0]
			if s.queue = s.queue[1:]; len(s.queue) == 0 {
				s.queue = nil
			}
			return e, true, nil
		}
		if s.done != nil {
			return Event{}, false, s.done
		}
		s.resolve()
		for _, l := range s.legs {
			if s.advance(l); len(s.queue) > 0 || s.done != nil {
				break
			}
		}
		if len(s.queue) == 0 && s.done == nil && !s.settle() {
			return Event{}, false, nil
		}
	}
}
