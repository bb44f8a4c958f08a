package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/claims"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// sender sends requests, one after the other.
func (w *world) sender(number int, sends []send) {
	random := rand.New(rand.NewPCG(w.plan.seed, 1000+uint64(number)))
	for _, s := range sends {
		if !w.sleep(s.pause) {
			return
		}
		w.send(random, s)
	}
}

// errHungUp is what is known of a request whose client or gateway went first.
var errHungUp = errors.New("the connection ended before the answer")

// send sends a request to some gateway, and follows what comes of it.
func (w *world) send(random *rand.Rand, s send) {
	g := w.anyGateway(random)
	is := &sent{send: s, at: w.history.now()}
	w.history.mu.Lock()
	w.history.sent = append(w.history.sent, is)
	w.history.mu.Unlock()
	if g == nil {
		is.err = errors.New("nobody listens")
		return
	}
	is.gateway = g.name
	work := &w.plan.works[s.work]
	w.history.note("%s: request for work %d (key %q, once %q, %s)", g.name, work.n, work.key, work.once, work.script)

	ctx, hangUp := context.WithCancel(w.ctx)
	defer hangUp()
	type outcome struct {
		claims   hub.Claims
		replayed bool
		noted    bool
		err      error
	}
	came := make(chan outcome, 1)
	g.requests.Add(1)
	w.background.Go(func() {
		var o outcome
		if o.err = g.net.pass(); o.err == nil { // the server reads the request
			o.replayed, o.noted, o.err = g.accept(ctx, work, &o.claims)
			if err := g.net.pass(); err != nil { // the server writes the answer
				o.err = fmt.Errorf("%w: %w", errHungUp, err)
			}
		}
		g.requests.Done()
		w.history.mu.Lock()
		is.claims = o.claims
		w.history.mu.Unlock()
		came <- o
	})
	var left <-chan time.Time
	if s.leaves > 0 {
		timer := time.NewTimer(s.leaves)
		defer timer.Stop()
		left = timer.C
	}
	var o outcome
	select {
	case o = <-came:
	case <-left:
		o.err = fmt.Errorf("%w: the client left", errHungUp)
	case <-g.net.dead:
		o.err = fmt.Errorf("%w: the gateway died", errHungUp)
	}
	w.history.mu.Lock()
	is.noted = o.noted
	is.answered, is.err, is.replayed, is.accepted = w.history.now(), o.err, o.replayed, o.err == nil
	is.unclear = errors.Is(o.err, errHungUp) || errors.Is(o.err, ingress.ErrUnclear) || errors.Is(o.err, errKilled)
	w.history.mu.Unlock()
	if o.err != nil {
		w.history.note("%s: request for work %d: %v", g.name, work.n, o.err)
		return
	}
	token, err := w.keys.Seal(o.claims)
	if err != nil {
		w.wrong("token of work %d: %v", work.n, err)
		return
	}
	w.history.note("%s: 202 for work %d: %s at %d/%d, replies in %d from %d, replayed %v", g.name, work.n, o.claims.ID,
		o.claims.Partition, o.claims.Offset, o.claims.ReplyPartition, o.claims.Floor, o.replayed)
	for i := range s.readers {
		w.read(is, token, fmt.Sprintf("reader %d of work %d", i, work.n), random.Uint64())
	}
	if s.cancels > 0 {
		canceller := rand.New(rand.NewPCG(w.plan.seed, random.Uint64()))
		w.clients.Go(func() {
			if w.sleep(s.cancels) {
				w.cancel(canceller, is, o.claims)
			}
		})
	}
}

// refusals are the errors after which nothing of a request is queued, besides
// those of which that is not sure.
var refusals = []error{
	ingress.ErrFull, ingress.ErrUnavailable, ingress.ErrClosed, hub.ErrNoFloor,
	claims.ErrReused, claims.ErrPending, claims.ErrNotRead, claims.ErrFull, claims.ErrUnwritten,
}

// cancel calls a request off, as often as it takes to be told that this is done.
func (w *world) cancel(random *rand.Rand, is *sent, c hub.Claims) {
	w.history.mu.Lock()
	w.cancelled[c.ID] = true
	w.history.mu.Unlock()
	for {
		if g := w.anyGateway(random); g != nil {
			w.history.note("%s: cancel work %d", g.name, is.work)
			done := make(chan error, 1)
			g.requests.Add(1)
			w.background.Go(func() {
				defer g.requests.Done()
				err := g.net.pass()
				if err == nil {
					err = g.callOff(w.ctx, c)
				}
				done <- err
			})
			select {
			case err := <-done:
				if err == nil {
					return
				}
				w.history.note("%s: work %d not cancelled: %v", g.name, is.work, err)
			case <-g.net.dead:
			}
		}
		if !w.sleep(time.Second) {
			return
		}
	}
}

func (w *world) isCancelled(stream string) bool {
	w.history.mu.Lock()
	defer w.history.mu.Unlock()
	return w.cancelled[stream]
}

// read has a client follow a stream until its end, at one gateway after the other.
func (w *world) read(is *sent, token, name string, seed uint64) {
	r := &reading{of: is, name: name}
	w.history.mu.Lock()
	w.history.reads = append(w.history.reads, r)
	w.history.mu.Unlock()
	random := rand.New(rand.NewPCG(w.plan.seed, seed))
	w.clients.Go(func() {
		var from *hub.Cursor
		for {
			if w.ctx.Err() != nil {
				r.open = true
				return
			}
			g := w.anyGateway(random)
			if g == nil {
				w.sleep(time.Second)
				continue
			}
			c, err := w.keys.Open(token)
			if err != nil {
				r.wrong = err.Error()
				return
			}
			over := w.follow(random, g, r, &c, &from)
			if over {
				return
			}
			w.sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
		}
	})
}

// follow is one connection of a reader. It tells whether there is to be no other.
func (w *world) follow(random *rand.Rand, g *gateway, r *reading, c *hub.Claims, from **hub.Cursor) (over bool) {
	if g.net.pass() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(1+random.IntN(40_000))*time.Millisecond)
	defer cancel()
	broken := make(chan struct{})
	defer close(broken)
	go func() {
		select {
		case <-g.net.dead:
		case <-g.leaving:
		case <-broken:
		}
		cancel()
	}()
	s := streamOf(c)
	sub := g.hub.Follow(s, *from)
	defer sub.Close()
	for leave := random.IntN(8); ; leave-- {
		e, err := sub.Next(ctx)
		if g.net.pass() != nil {
			return false // it was never sent
		}
		switch {
		case errors.Is(err, io.EOF):
			r.wrong = fmt.Sprintf("nothing more at %s, without an end", g.name)
			return true
		case err != nil:
			return false
		}
		switch e.Kind {
		case hub.KindReply:
			at := e.Cursor
			r.replies = append(r.replies, seen{at, string(e.Entry.Reply.Body)})
			*from = &at
		case hub.KindGap:
			r.gaps = append(r.gaps, fmt.Sprintf("%+v at %s after %v", e.Gap, g.name, *from))
		case hub.KindEnd:
			at := e.Cursor
			*from = &at
			r.ends = append(r.ends, ending{w.history.now(), e.Cursor, string(e.End.Status), e.End.Code, e.End.Reason})
			w.history.note("%s: %s has the end: %s %d %s", g.name, r.name, e.End.Status, e.End.Code, e.End.Reason)
			return w.again(random, r, s, at)
		}
		if leave <= 0 && e.Kind == hub.KindReply {
			return false
		}
		if random.IntN(10) == 0 && !w.sleep(time.Duration(random.IntN(2000))*time.Millisecond) {
			return false
		}
	}
}

// again has a client that has seen the end come back with its cursor, to whatever
// gateway: it is told that there is nothing more.
func (w *world) again(random *rand.Rand, r *reading, s hub.Stream, at hub.Cursor) (over bool) {
	for range 5 {
		g := w.anyGateway(random)
		if g == nil || g.net.pass() != nil {
			w.sleep(time.Second)
			continue
		}
		ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
		ended, err := g.hub.Ended(ctx, s, at)
		cancel()
		if err == nil && !ended {
			r.wrong = fmt.Sprintf("%s does not take %s for the end", g.name, at)
		}
		if err == nil {
			break
		}
	}
	return true
}

// body gives the text of all that a reader has got.
func (r *reading) body() string {
	var b strings.Builder
	for _, s := range r.replies {
		b.WriteString(s.body)
	}
	return b.String()
}

// state is how a reader's stream ended.
func (r *reading) state() record.State {
	if len(r.ends) == 0 {
		return ""
	}
	return record.State(r.ends[0].status)
}
