package hub

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
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
	wake   chan struct{} // holds one wish to look again
	tick   uint64        // the hub's clock when the subscription began
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
	sub := &Subscription{hub: h, stream: s, wake: make(chan struct{}, 1), tick: h.tick()}
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
	s.notify()
}

func (s *Subscription) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next gives the stream's next event, and waits for it. After the end it gives
// io.EOF; a client whose cursor says that it has seen the end gets io.EOF at
// once. When subscription or hub are closed it gives ErrClosed, and the
// context's error when that ends; then nothing is lost, and Next can be called
// again.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if s.hub.ctx.Err() != nil {
			return Event{}, ErrClosed
		}
		if e, ok, err := s.look(); ok || err != nil {
			return e, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.hub.ctx.Done():
			return Event{}, ErrClosed
		}
	}
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
	s.notify()
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

// resolve finds the stream's partitions, again whenever the topic has changed.
func (s *Subscription) resolve() {
	if s.version == s.topic.version.Load() {
		return
	}
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	t := s.topic
	s.version = t.version.Load()
	current := t.is.ID.Incarnation()
	first := len(s.legs) == 0
	if !first && s.legs[0].reader.partition.incarnation != current {
		if !s.doubted() {
			s.from = nil
			s.recreated("")
		}
		s.detach()
	}
	for _, index := range s.partitions(t.is.Partitions()) {
		if slices.ContainsFunc(s.legs, func(l *leg) bool { return l.reader.partition.index == index }) {
			continue
		}
		l := &leg{start: beginning{floor: s.stream.Floor, cursor: noCursor}}
		switch {
		case s.stream.Incarnation != current:
			l.start.floor = logStart
		case index != s.stream.Partition:
			l.start.floor, l.byTime = logStart, true
		}
		l.reader = reader{partition: t.partition(index), id: s.stream.ID, wake: s.wake, tick: s.hub.tick()}
		l.reader.attach()
		s.legs = append(s.legs, l)
	}
	if first {
		s.aim(current)
	}
}

// partitions lists where the stream's replies may be: in the partition that the
// token names and, where there are more partitions now than then, also where
// the stream id is placed among so many. A topic made again with fewer has the
// latter only.
func (s *Subscription) partitions(now int32) []int32 {
	var at []int32
	if s.stream.Partition < now {
		at = append(at, s.stream.Partition)
	}
	if now != s.stream.Partitions && now > 0 {
		if placed := record.Partition([]byte(s.stream.ID), now); !slices.Contains(at, placed) {
			at = append(at, placed)
		}
	}
	return at
}

// aim gives the client's cursor to the leg that it belongs to. The others begin
// at the stream's beginning: a cursor names one partition, so a client that got
// replies from both, and comes back, gets those of the other again.
func (s *Subscription) aim(current uint32) {
	c := s.from
	s.from = nil
	if c == nil {
		if s.stream.Incarnation != current {
			s.recreated("")
		}
		return
	}
	if c.Mark == MarkExpired {
		s.from = c
		return
	}
	i := slices.IndexFunc(s.legs, func(l *leg) bool { return l.reader.partition.index == c.Partition })
	switch {
	case c.Incarnation != current && s.stream.Incarnation != current:
		s.recreated(c.String())
	case c.Incarnation != current || i < 0:
		s.gap(record.Gap{From: c.String(), Reason: gapCursor})
	default:
		s.legs[i].start.cursor = c.Offset
		s.from = c
	}
}

func (s *Subscription) gap(g record.Gap) {
	s.queue = append(s.queue, Event{Kind: KindGap, Gap: g})
}

func (s *Subscription) recreated(from string) {
	s.gap(record.Gap{From: from, Reason: gapRecreated})
}

// advance moves one leg on until it has queued an event or there is nothing for it.
func (s *Subscription) advance(l *leg) {
	for len(s.queue) == 0 && s.done == nil {
		if l.phase == placing {
			if !s.place(l) {
				return
			}
			continue
		}
		if l.gap == nil {
			if e := l.next(); e != nil {
				s.give(e)
				continue
			}
		}
		e, out := l.reader.read()
		switch out {
		case nothing:
			if !s.pause(l) {
				return
			}
		case removed:
			s.shorten(l)
		case beyond:
			s.truncated(l)
		case found:
			s.meet(l, e)
		}
	}
}

// place sends a leg to where it begins, and tells whether that is known.
func (s *Subscription) place(l *leg) bool {
	r := &l.reader
	if l.byTime {
		at, ok := r.partition.locate(s.stream.Issued.Add(-issuedGrace))
		if !ok {
			return false
		}
		l.byTime, l.start.floor = false, at
	}
	log, ok := r.bounds(s.tick)
	if !ok {
		return false
	}
	to := l.start.land(log)
	if to.ask {
		r.await(s.tick)
		return false
	}
	r.seek(to.at)
	switch {
	case to.verify:
		l.phase = verifying
		return true
	case s.doubted():
		l.phase = doubting
		return true
	case to.held:
		l.holdBack(max(l.start.floor, l.start.cursor), to.at)
	case to.gap != "":
		g := record.Gap{Reason: to.gap, To: l.cursor(to.at).String()}
		if l.start.cursor != noCursor {
			g.From = l.cursor(l.start.cursor).String()
		} else {
			g.From = l.cursor(l.start.floor).String()
		}
		s.gap(g)
	}
	if l.start.cursor != noCursor {
		l.start.cursor, s.from = noCursor, nil
	}
	l.phase = reading
	return true
}

// doubted tells whether the client says that the stream has expired.
func (s *Subscription) doubted() bool { return s.from != nil && s.from.Mark == MarkExpired }

// meet takes an entry that a leg has come to.
func (s *Subscription) meet(l *leg, e *Entry) {
	late := !s.stream.Expires.IsZero() && e.Time.After(s.stream.Expires)
	switch l.phase {
	case verifying:
		s.verify(l, e, late)
		return
	case doubting:
		if !late && e.Reply.Terminal() {
			s.refuse()
		}
		return
	}
	switch {
	case late: // it is kept, and nobody waits for it any more
	case l.gap == nil:
		s.give(e)
	case e.Reply.Terminal():
		l.keep(e)
		l.gap = nil
	case !l.keep(e):
		s.gap(*l.gap)
		l.gap = nil
	}
}

// verify checks the first record found at or after the client's cursor.
func (s *Subscription) verify(l *leg, e *Entry, late bool) {
	marked := s.from.Mark == MarkEnd
	switch {
	case e.Cursor.Offset != l.start.cursor || late || marked && !e.Reply.Terminal():
		s.refuse()
	case marked:
		s.finish()
	case e.Reply.Terminal():
		s.end(e)
	default:
		l.phase, l.start.cursor, s.from = reading, noCursor, nil
	}
}

// refuse tells that the client's cursor is of no use, and begins anew.
func (s *Subscription) refuse() {
	s.gap(record.Gap{From: s.from.String(), Reason: gapCursor})
	s.from = nil
	for _, l := range s.legs {
		if l.phase == verifying || l.phase == doubting {
			l.phase, l.gap, l.held = reading, nil, nil
			s.restart(l)
		}
	}
}

// restart sends a leg to the stream's beginning, or to the log's where the log
// begins later. The gap that this is about was told.
func (s *Subscription) restart(l *leg) {
	log, _ := l.reader.bounds(0)
	from := l.start
	from.cursor = noCursor
	l.start.cursor = noCursor
	l.live, l.last = target{}, target{}
	log.fresh = true
	l.reader.seek(from.land(log).at)
}

// pause handles a leg for which there is nothing now, and tells whether that
// has brought it on.
func (s *Subscription) pause(l *leg) bool {
	switch {
	case l.phase == verifying:
		if at, _ := l.reader.standing(); at > l.start.cursor {
			s.refuse()
			return true
		}
	case l.phase == reading && l.gap != nil && l.reached(s.tick):
		s.gap(*l.gap)
		l.gap = nil
		return true
	}
	return false
}

// shorten handles a log that now begins after the leg.
func (s *Subscription) shorten(l *leg) {
	at, _ := l.reader.standing()
	log, ok := l.reader.bounds(0)
	if !ok {
		return
	}
	l.reader.seek(log.start)
	switch l.phase {
	case verifying:
		s.from, l.start.cursor, l.phase = nil, noCursor, reading
		l.holdBack(at, log.start)
	case reading:
		l.holdBack(at, log.start)
	}
}

// truncated handles a log that now ends before the leg: brokers have lost
// records. What was written in their place cannot be told from what the client
// has seen, so it gets everything again.
func (s *Subscription) truncated(l *leg) {
	at, _ := l.reader.standing()
	s.gap(record.Gap{From: l.cursor(at).String(), Reason: gapTruncated})
	l.gap, l.held = nil, nil
	if l.phase == verifying {
		s.from, l.phase = nil, reading
	}
	s.restart(l)
}

// give queues the events that a record stands for.
func (s *Subscription) give(e *Entry) {
	switch e.Reply.State {
	case "":
		s.queue = append(s.queue, Event{Kind: KindReply, Cursor: e.Cursor, Entry: e})
	case record.StateDelivering, record.StateRetrying:
		s.queue = append(s.queue, Event{Kind: KindStatus, Entry: e})
	}
	if e.Reply.Terminal() {
		s.end(e)
	}
}

// end queues the stream's end as a record tells it.
func (s *Subscription) end(e *Entry) {
	at := e.Cursor
	at.Mark = MarkEnd
	s.queue = append(s.queue, Event{Kind: KindEnd, Cursor: at, Entry: e, End: e.Reply.End()})
	s.finish()
}

// finish lets nothing follow what is queued.
func (s *Subscription) finish() {
	s.done = io.EOF
	s.detach()
}

// settle decides what follows from having seen everything, and tells whether
// anything did: that the stream has expired, or that the subscription has
// caught up. Call it when no leg has anything to give.
func (s *Subscription) settle() bool {
	if s.expired() {
		return true
	}
	if s.caughtUp || len(s.legs) == 0 {
		return false
	}
	for _, l := range s.legs {
		if l.phase != reading || !l.reached(s.tick) {
			return false
		}
	}
	s.caughtUp = true
	s.queue = append(s.queue, Event{Kind: KindCaughtUp})
	return true
}

// expired ends the stream if it has expired: the time for replies is over, and
// all that the log held after that was read without an end in it. Where the
// topic is gone the log holds nothing.
func (s *Subscription) expired() bool {
	if s.stream.Expires.IsZero() || time.Now().Before(s.stream.due()) {
		if s.doubted() {
			s.refuse()
			return true
		}
		return false
	}
	if s.overdue == 0 {
		s.overdue = s.hub.tick()
	}
	at := Cursor{Incarnation: s.stream.Incarnation, Partition: s.stream.Partition, Offset: s.stream.Floor, Mark: MarkExpired}
	if !s.gone() {
		if len(s.legs) == 0 {
			return false
		}
		for _, l := range s.legs {
			if l.phase == placing || l.phase == verifying || l.gap != nil || !l.exhausted(s.overdue) {
				return false
			}
		}
		at.Incarnation = s.legs[0].reader.partition.incarnation
		at.Partition, at.Offset = s.legs[0].reader.partition.index, s.legs[0].last.at
	}
	if !s.doubted() {
		s.queue = append(s.queue, Event{Kind: KindEnd, Cursor: at, End: record.End{Status: record.StateExpired}})
	}
	s.finish()
	return true
}

// gone tells whether a broker said, after the stream had expired, that there is
// no such topic.
func (s *Subscription) gone() bool {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.topic.gone > s.overdue
}
