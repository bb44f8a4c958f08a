package load

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Trip is a closed loop of requests that are followed to their reply: every
// connection posts, opens the event stream that the answer's Location names,
// and begins again when the stream has ended.
type Trip struct {
	// Address is where the server listens.
	Address netip.AddrPort
	// Connections is how many requests are under way at a time.
	Connections int
	// Request is what is posted.
	Request []byte
}

// Run goes on for the given time. A latency is the time from sending the
// request to the first reply event.
func (t Trip) Run(ctx context.Context, duration time.Duration) (Result, error) {
	loop, err := NewLoop()
	if err != nil {
		return Result{}, err
	}
	defer loop.Close()
	run := tripping{trip: t, until: time.Now().Add(duration)}
	began := time.Now()
	for range t.Connections {
		h := &tripper{run: &run}
		c, err := loop.Dial(t.Address, netip.Addr{}, h)
		if err != nil {
			return Result{}, err
		}
		run.busy++
		if err := h.post(c); err != nil {
			return Result{}, err
		}
	}
	const patience = 30 * time.Second
	limit, cancel := context.WithTimeout(ctx, duration+patience)
	defer cancel()
	if err := loop.Run(limit, func() bool { return run.busy == 0 }); err != nil {
		return Result{}, fmt.Errorf("follow requests to %s: %w", t.Address, err)
	}
	if err := limit.Err(); err != nil {
		return Result{}, fmt.Errorf("follow requests to %s: %d of %d have no reply: %w", t.Address, run.busy, t.Connections, err)
	}
	run.result.Elapsed = time.Since(began)
	return run.result, nil
}

// tripping is a trip while it runs.
type tripping struct {
	trip   Trip
	until  time.Time
	busy   int
	result Result
}

// stage is what a connection waits for.
type stage int

const (
	accepted stage = iota // the 202
	opened                // the head of the stream
	ended                 // the reply and the end of the stream
)

// tripper is one connection of it.
type tripper struct {
	run     *tripping
	stage   stage
	sent    time.Time
	events  Events
	replied bool
}

func (h *tripper) post(c *Conn) error {
	h.stage, h.replied, h.sent = accepted, false, time.Now()
	return c.Send(h.run.trip.Request)
}

// errNoReply says that a stream ended and no reply was on it.
var errNoReply = errors.New("a stream ended without a reply")

// Receive goes from stage to stage.
func (h *tripper) Receive(c *Conn, in []byte) (consumed int, err error) {
	if h.stage != ended {
		head, complete, err := ParseHead(in)
		if err != nil || !complete || len(in) < head.Size+head.Length {
			return 0, err
		}
		consumed = head.Size + head.Length
		if h.stage == accepted {
			if head.Status != 202 || len(head.Location) == 0 || head.Chunked {
				return 0, fmt.Errorf("an answer of another kind than 202 with a Location and a length: %.1000q", in)
			}
			h.stage = opened
			return consumed, c.Send(Follow(h.run.trip.Address, string(head.Location)))
		}
		if head.Status != 200 || !head.Chunked {
			return 0, fmt.Errorf("an answer of another kind than a stream: %.1000q", in)
		}
		h.stage = ended
	}
	n, over, err := h.events.Read(in[consumed:], h.event)
	consumed += n
	if err != nil || !over {
		return consumed, err
	}
	if !h.replied {
		return consumed, errNoReply
	}
	if time.Now().After(h.run.until) {
		h.run.busy--
		return consumed, nil
	}
	return consumed, h.post(c)
}

// event stops the clock at the first reply.
func (h *tripper) event(event []byte) error {
	if !h.replied && IsReply(event) {
		h.replied = true
		h.run.result.Answers++
		h.run.result.Latencies = append(h.run.result.Latencies, time.Since(h.sent))
	}
	return nil
}
