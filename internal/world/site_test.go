package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// site answers requests as their scripts say. It stands for the route's handlers
// in the gateway and for the upstream behind them: the latter goes on while the
// process is frozen, and hears of its death at once.
type site struct {
	g       *gateway
	options deliver.Options
}

// errGone is what the gateway sees of an upstream that it does not reach any more.
var errGone = errors.New("upstream gone")

// ServeHTTP implements deliver.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	if err := s.g.net.pass(); err != nil {
		return err
	}
	if err := r.Context().Err(); err != nil {
		return err // no proxy sends a request that has been cancelled
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(string(body))
	if err != nil || n >= len(s.g.w.plan.works) {
		s.g.w.wrong("the site got a request that nobody sent: %q", body)
		return err
	}
	attempt, _ := strconv.Atoi(r.Header.Get(deliver.HeaderAttempt))
	c := &call{
		site: s, w: w, r: r, script: s.g.w.plan.works[n].script,
		try: s.g.w.history.begin(s.g, n, r.Header.Get(deliver.HeaderStreamID), attempt, s.options),
	}
	err = c.answer()
	// What the upstream has done is done. The gateway hears of it when it runs.
	if gone := s.g.net.pass(); gone != nil {
		return gone
	}
	return err
}

// call is one call.
type call struct {
	site   *site
	w      http.ResponseWriter
	r      *http.Request
	script script
	try    *try
}

func (c *call) answer() error {
	s := c.script
	fails := c.try.attempt <= s.fails
	switch {
	case s.way == hanging && fails:
		return c.wait(never*time.Second, false)
	case s.way == deaf && fails:
		if err := c.wait(s.work, true); err != nil {
			return err
		}
		return c.whole(http.StatusOK)
	}
	if err := c.wait(s.work, false); err != nil {
		return err
	}
	switch {
	case s.way == failing && fails:
		if s.retryAfter > 0 {
			c.w.Header().Set("Retry-After", strconv.Itoa(s.retryAfter))
		}
		c.end(failed)
		return c.write(s.code, "")
	case s.way == broken && fails:
		c.end(failed)
		panic("the site panics")
	case s.way == refusing:
		return c.whole(http.StatusNotFound)
	case s.way == parts:
		return c.parts(s.parts, false)
	case s.way == aborted:
		return c.parts(s.parts, true)
	}
	return c.whole(http.StatusOK)
}

// text is a part of the answer of a try, from 1.
func text(work, attempt, part int) string { return fmt.Sprintf("<%d.%d.%d>", work, attempt, part) }

// whole is the answer of a try in n parts.
func whole(work, attempt, n int) (all string) {
	for i := range n {
		all += text(work, attempt, i+1)
	}
	return all
}

func (c *call) whole(status int) error {
	c.end(answered)
	return c.write(status, text(c.try.work, c.try.attempt, 1))
}

func (c *call) parts(n int, abort bool) error {
	for i := range n {
		if i > 0 {
			if err := c.wait(c.script.work, false); err != nil {
				return err
			}
		}
		c.site.g.w.history.partOf(c.try)
		if i == n-1 && !abort {
			c.end(answered)
		}
		if err := c.write(http.StatusOK, text(c.try.work, c.try.attempt, i+1)); err != nil {
			c.end(cut) // the gateway reads no further
			return err
		}
		if err := http.NewResponseController(c.w).Flush(); err != nil {
			return err
		}
	}
	if abort {
		c.end(brokeOff)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// write has the gateway write something, once it runs.
func (c *call) write(status int, body string) error {
	if err := c.site.g.net.pass(); err != nil {
		return err
	}
	if !c.try.wrote {
		c.try.wrote = true
		c.w.WriteHeader(status)
	}
	_, err := io.WriteString(c.w, body)
	return err
}

// wait is work at the upstream. It ends early when the gateway hangs up, which it
// does when it runs, or dies.
func (c *call) wait(d time.Duration, deaf bool) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	if deaf {
		select {
		case <-timer.C:
			return nil
		case <-c.site.g.net.dead:
			return errKilled
		case <-c.r.Context().Done():
			c.site.g.w.history.deafened(c.try)
		}
		select {
		case <-timer.C:
			return nil
		case <-c.site.g.net.dead:
			return errKilled
		}
	}
	select {
	case <-timer.C:
		return nil
	case <-c.site.g.net.dead:
		return errKilled
	case <-c.r.Context().Done():
	}
	for open := c.site.g.net.frozen.opens(); open != nil; open = c.site.g.net.frozen.opens() {
		select {
		case <-open:
		case <-timer.C:
			return nil
		case <-c.site.g.net.dead:
			return errKilled
		}
	}
	if c.site.g.net.isDead() {
		return errKilled
	}
	how := cut
	switch {
	case c.site.g.w.history.now()-c.try.began >= c.site.options.Timeout:
		how = timedOut
	case c.site.g.w.isCancelled(c.try.stream):
		how = calledOff
	}
	c.end(how)
	if how == cut {
		c.site.g.w.history.note("%s: try %d of work %d was cut: %v", c.site.g.name, c.try.attempt, c.try.work, context.Cause(c.r.Context()))
	}
	return fmt.Errorf("%w: %w", errGone, c.r.Context().Err())
}

func (c *call) end(how end) { c.site.g.w.history.end(c.try, how) }

// begin notes that a try has begun.
func (h *history) begin(g *gateway, work int, stream string, attempt int, o deliver.Options) *try {
	t := &try{gateway: g, work: work, stream: stream, attempt: attempt, began: h.now(), ended: -1, sure: o.RetryStarted, attempts: o.Attempts}
	h.mu.Lock()
	h.tries = append(h.tries, t)
	h.mu.Unlock()
	h.note("%s: try %d of work %d begins", g.name, attempt, work)
	return t
}

// end notes how a try has ended, unless that is known.
func (h *history) end(t *try, how end) {
	h.mu.Lock()
	if t.ended >= 0 {
		h.mu.Unlock()
		return
	}
	t.ended, t.how = h.now(), how
	h.mu.Unlock()
	h.note("%s: try %d of work %d %s", t.gateway.name, t.attempt, t.work, how)
}

func (h *history) partOf(t *try) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.begun = true
}

func (h *history) deafened(t *try) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.deafened = true
}

// killed ends the tries of a process that was killed.
func (h *history) killed(g *gateway) {
	h.mu.Lock()
	var open []*try
	for _, t := range h.tries {
		if t.gateway == g && t.ended < 0 {
			open = append(open, t)
		}
	}
	h.mu.Unlock()
	for _, t := range open {
		h.end(t, killed)
	}
}
