//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// contentType is what a crowd sends.
const contentType = "application/octet-stream"

// crowd is a number of clients that send orders to one address and follow
// the streams that they get, and notes all of it in a history.
//
// Half of the senders use a key of their own. Each sends one request at a time over
// connections that are kept. One that was certainly not sent, since nobody
// could be dialed, is sent again; any other counts as it ended.
//
// Each stream is followed from connection to connection, every one from the
// cursor of the last event, until the end was told. Unlike a browser the
// clients are impatient: they come back within half a second.
type crowd struct {
	*history        // crowds may share one; default: its own
	URL      string // of the site
	senders  int
	// more is asked before each request whether to send it.
	more func() bool
	// every is how long each sender pauses between its requests. Default: not at all.
	every time.Duration
	// fresh sends each request, and follows each stream, over a connection of its own.
	fresh bool
	// forms are how streams are followed: each begins with one of them, and goes
	// on with the next whenever its connection has ended. Default: all.
	forms []follower
	// silence is after how long a connection that tells nothing, nor sends a
	// heartbeat, is given up. Default: never.
	silence time.Duration

	got202, opened, ended atomic.Int64 // requests; connections to streams; streams

	ctx     context.Context
	posts   *http.Client
	streams *http.Client
	sending sync.WaitGroup
	reading sync.WaitGroup
}

// underLoad gives how many requests are sent while something is killed: few of
// them, for most of the time is that of what comes back, unless
// OSMOSIS_TEST_REQUESTS asks for more.
func underLoad(t *testing.T) int {
	t.Helper()
	text := os.Getenv("OSMOSIS_TEST_REQUESTS")
	if text == "" {
		return 4_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// requests lets a crowd send n of them.
func requests(n int) func() bool {
	var begun atomic.Int64
	return func() bool { return begun.Add(1) <= int64(n) }
}

// start lets the clients begin. They end with the test at the latest.
func (c *crowd) start(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	c.ctx = ctx
	if c.history == nil {
		c.history = new(history)
	}
	if c.forms == nil {
		c.forms = []follower{bySSE, byWebSocket, byPolling}
	}
	silence := c.silence
	if silence == 0 {
		silence = patience
	}
	c.posts = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.senders, ResponseHeaderTimeout: silence, DisableKeepAlives: c.fresh}}
	c.streams = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: c.senders, ResponseHeaderTimeout: silence, DisableKeepAlives: c.fresh}}
	t.Cleanup(func() {
		cancel()
		c.sending.Wait()
		c.reading.Wait()
		c.posts.CloseIdleConnections()
		c.streams.CloseIdleConnections()
	})
	for i := range c.senders {
		key := ""
		if i%2 == 0 {
			key = fmt.Sprintf("sender-%d", i)
		}
		c.sending.Go(func() {
			for ctx.Err() == nil && c.more() {
				a := c.begin(key)
				c.send(a)
				if a.verdict == verdictAccepted {
					c.got202.Add(1)
					c.reading.Go(func() { c.follow(a) })
				}
				if c.every > 0 {
					c.pause(c.every)
				}
			}
		})
	}
}

// await waits until a counter has come so far.
func (c *crowd) await(t testing.TB, what string, counter *atomic.Int64, n int64) {
	t.Helper()
	for counter.Load() < n {
		if c.ctx.Err() != nil {
			t.Fatalf("%s: %d of %d: %v", what, counter.Load(), n, c.ctx.Err())
		}
		c.pause(10 * time.Millisecond)
	}
}

// finish waits until all is sent and all streams have ended.
func (c *crowd) finish(t testing.TB) {
	t.Helper()
	c.sending.Wait()
	done := make(chan struct{})
	go func() {
		c.reading.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Errorf("%d streams of %d have ended %s after the last request", c.ended.Load(), c.got202.Load(), patience)
	}
}

func (c *crowd) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-c.ctx.Done():
	}
}

// send sends one request and notes what came of it.
func (c *crowd) send(a *attempt) {
	for c.ctx.Err() == nil {
		request, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.URL+path(a.n), bytes.NewReader(body(a.n)))
		if err != nil {
			a.fault = err.Error()
			return
		}
		// Without it the client would send a request by itself again when a kept connection broke.
		request.GetBody = nil
		request.Header.Set("Content-Type", contentType)
		if a.key != "" {
			request.Header.Set("X-Sender", a.key)
		}
		response, err := c.posts.Do(request)
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			c.pause(50 * time.Millisecond)
			continue
		}
		if err != nil {
			a.lost = err.Error()
			return
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			a.lost = err.Error()
			return
		}
		switch {
		case response.StatusCode == http.StatusAccepted:
			if err := json.Unmarshal(text, &a.accepted); err != nil {
				a.fault = fmt.Sprintf("%v in %s", err, text)
			}
			a.verdict = verdictAccepted
		case response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "":
			a.fault = fmt.Sprintf("%s, Retry-After %q: %s", response.Status, response.Header.Get("Retry-After"), text)
		case strings.Contains(string(text), "may have been queued"):
			a.verdict = verdictUnclear
		default:
			a.verdict = verdictRefused
		}
		return
	}
}
