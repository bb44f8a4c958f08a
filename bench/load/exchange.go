package load

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Exchange is a closed loop of requests: every connection carries one at a time
// and sends the next when the answer is there.
type Exchange struct {
	// Address is where the server listens.
	Address netip.AddrPort
	// Connections is how many requests are under way at a time.
	Connections int
	// Requests are the requests as they are sent. Each connection goes through
	// all of them, beginning at a place of its own.
	Requests [][]byte
	// Status is the status that counts as an answer, and Also another one, if it
	// is not 0; any other ends the run with an error.
	Status, Also int
	// Limit ends the run after so many requests. 0: time alone does.
	Limit int
	// Answer gets the head of every answer; what it refers to is valid during
	// the call only. Nil: nobody wants it.
	Answer func(Head)
}

// Result is what a run has come to.
type Result struct {
	// Answers is how many requests were answered.
	Answers int
	// Elapsed is how long that took.
	Elapsed time.Duration
	// Latencies are the times from sending to answer, one a request.
	Latencies []time.Duration
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.Answers) / r.Elapsed.Seconds() }

// Run opens the connections, keeps them busy for the given time, and closes
// them. Requests that are under way at the end are awaited and count.
func (x Exchange) Run(ctx context.Context, duration time.Duration) (Result, error) {
	loop, err := NewLoop()
	if err != nil {
		return Result{}, err
	}
	defer loop.Close()
	run := exchanging{exchange: x, until: time.Now().Add(duration)}
	run.result.Latencies = make([]time.Duration, 0, 1<<16)
	began := time.Now()
	for i := range x.Connections {
		h := &exchanger{run: &run, next: i * len(x.Requests) / x.Connections}
		c, err := loop.Dial(x.Address, netip.Addr{}, h)
		if err != nil {
			return Result{}, err
		}
		if x.Limit > 0 && run.sent == x.Limit {
			break
		}
		run.busy++
		if err := h.send(c); err != nil {
			return Result{}, err
		}
	}
	// A server that stops answering ends the run by this, as an error.
	const patience = 30 * time.Second
	limit, cancel := context.WithTimeout(ctx, duration+patience)
	defer cancel()
	if err := loop.Run(limit, func() bool { return run.busy == 0 }); err != nil {
		return Result{}, fmt.Errorf("load %s: %w", x.Address, err)
	}
	if err := limit.Err(); err != nil {
		return Result{}, fmt.Errorf("load %s: %d of %d requests are not answered: %w", x.Address, run.busy, x.Connections, err)
	}
	run.result.Elapsed = time.Since(began)
	return run.result, nil
}

// exchanging is an exchange while it runs.
type exchanging struct {
	exchange Exchange
	until    time.Time
	busy     int // connections with a request under way
	sent     int // requests
	result   Result
}

// exchanger is one connection of it.
type exchanger struct {
	run  *exchanging
	next int
	sent time.Time
}

func (h *exchanger) send(c *Conn) error {
	h.sent = time.Now()
	h.run.sent++
	request := h.run.exchange.Requests[h.next]
	if h.next++; h.next == len(h.run.exchange.Requests) {
		h.next = 0
	}
	return c.Send(request)
}

// Receive waits for the whole answer and sends the next request.
func (h *exchanger) Receive(c *Conn, in []byte) (int, error) {
	head, complete, err := ParseHead(in)
	if err != nil || !complete || len(in) < head.Size+head.Length {
		return 0, err
	}
	if head.Status != h.run.exchange.Status && head.Status != h.run.exchange.Also || head.Chunked {
		return 0, fmt.Errorf("an answer of another kind than %d with a length: %.1000q", h.run.exchange.Status, in)
	}
	if h.run.exchange.Answer != nil {
		h.run.exchange.Answer(head)
	}
	now := time.Now()
	h.run.result.Answers++
	h.run.result.Latencies = append(h.run.result.Latencies, now.Sub(h.sent))
	if now.After(h.run.until) || h.run.exchange.Limit > 0 && h.run.sent == h.run.exchange.Limit {
		h.run.busy--
		return head.Size + head.Length, nil
	}
	return head.Size + head.Length, h.send(c)
}
