//go:build e2e

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// follower follows a stream over one connection, in one form, from behind the
// event that the attempt knows last. It notes what the stream tells and says
// whether that was all; an error is what no client should meet.
type follower func(ctx context.Context, c *crowd, a *attempt) (ended bool, err error)

// follow follows one stream to its end.
func (c *crowd) follow(a *attempt) {
	for turn := a.n; c.ctx.Err() == nil; turn++ {
		ctx, cancel := context.WithCancel(c.ctx)
		ended, err := c.forms[turn%len(c.forms)](ctx, c, a)
		cancel()
		if err != nil {
			a.fault = err.Error()
			return
		}
		if ended {
			c.ended.Add(1)
			return
		}
		c.pause(50*time.Millisecond + rand.N(450*time.Millisecond))
	}
}

// last is the cursor from which a client goes on; "" before the first event.
func (a *attempt) last() string {
	if len(a.events) == 0 {
		return ""
	}
	return a.events[len(a.events)-1].ID
}

// connected notes a connection that the gateway has answered.
func (c *crowd) connected(a *attempt) {
	c.opened.Add(1)
	if a.connections++; len(a.events) > 0 {
		a.resumed++
	}
}

// listen gives a function to call at each sign of life. When it was not called
// for the crowd's silence, the connection is given up.
func (c *crowd) listen(giveUp func()) (alive, stop func()) {
	if c.silence == 0 {
		return func() {}, func() {}
	}
	alarm := time.AfterFunc(c.silence, giveUp)
	return func() { alarm.Reset(c.silence) }, func() { alarm.Stop() }
}

// bySSE follows a stream as an EventSource does, which gives up for good on any
// status but 200.
func bySSE(ctx context.Context, c *crowd, a *attempt) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := c.ask(ctx, a, "Accept", "text/event-stream", "Last-Event-ID", a.last())
	if err != nil {
		return false, nil // the gateway is away
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return false, fmt.Errorf("events from %q: %s %s", a.last(), response.Status, text)
	}
	c.connected(a)
	alive, stop := c.listen(cancel)
	defer stop()
	content := readerFunc(func(p []byte) (int, error) {
		n, err := response.Body.Read(p)
		alive()
		return n, err
	})
	// After the end nothing may come but the connection's own.
	_ = readEvents(content, a.last(), func(e event) bool {
		a.events = append(a.events, e)
		ended = ended || e.Type == "end"
		return false
	})
	return ended, nil
}

// readerFunc is a reader that is a function.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// byWebSocket follows a stream as CloudEvents, one a frame.
func byWebSocket(ctx context.Context, c *crowd, a *attempt) (ended bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	alive, stop := c.listen(cancel)
	defer stop()
	target := strings.Replace(a.accepted.Stream, "http", "ws", 1) + "?last-event-id=" + url.QueryEscape(a.last())
	conn, response, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient:     c.streams,
		OnPingReceived: func(context.Context, []byte) bool { alive(); return true },
	})
	if err != nil {
		if response != nil && response.StatusCode != http.StatusServiceUnavailable {
			return false, fmt.Errorf("WebSocket from %q: %w", a.last(), err)
		}
		return false, nil // the gateway is away
	}
	defer conn.CloseNow()
	c.connected(a)
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			if ended && websocket.CloseStatus(err) != websocket.StatusNormalClosure && ctx.Err() == nil {
				// The gateway may die before it closes; what else it may say is this.
				var closed websocket.CloseError
				if errors.As(err, &closed) {
					return true, fmt.Errorf("WebSocket after the end: %w", err)
				}
			}
			return ended, nil
		}
		alive()
		e, err := cloudEvent(frame)
		if err != nil {
			return ended, err
		}
		a.events = append(a.events, e)
		ended = ended || e.Type == "end"
	}
}

// byPolling asks once, to be held for a while unless there is something new.
func byPolling(ctx context.Context, c *crowd, a *attempt) (ended bool, err error) {
	response, err := c.ask(ctx, a, "Accept", "application/json", "Prefer", "wait=2", "Last-Event-ID", a.last())
	if err != nil {
		return false, nil // the gateway is away
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return false, nil
	}
	switch response.StatusCode {
	case http.StatusNotModified, http.StatusServiceUnavailable:
		return false, nil
	case http.StatusOK:
	default:
		return false, fmt.Errorf("JSON from %q: %s %s", a.last(), response.Status, text)
	}
	a.polls++
	var view struct {
		Cursor  string
		Replies []json.RawMessage
		End     json.RawMessage
		Gaps    []json.RawMessage
	}
	if err := json.Unmarshal(text, &view); err != nil || len(view.Gaps) > 0 {
		return false, fmt.Errorf("JSON from %q: %w in %s", a.last(), err, text)
	}
	for _, reply := range view.Replies {
		e, err := cloudEvent(reply)
		if err != nil {
			return false, err
		}
		a.events = append(a.events, e)
	}
	if view.End != nil {
		a.events = append(a.events, event{Type: "end", Data: string(view.End), ID: view.Cursor})
	}
	return view.End != nil, nil
}

// ask asks for a stream. Headers without a value are left out.
func (c *crowd) ask(ctx context.Context, a *attempt, headers ...string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.accepted.Stream, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] != "" {
			request.Header.Set(headers[i], headers[i+1])
		}
	}
	return c.streams.Do(request)
}

// cloudEvent gives a CloudEvent as the server-sent event that it corresponds to.
func cloudEvent(text []byte) (event, error) {
	var e struct {
		Type, Cursor string
		Data         json.RawMessage
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return event{}, fmt.Errorf("%w in %s", err, text)
	}
	name := strings.TrimPrefix(e.Type, "osmosis.")
	data := string(e.Data)
	if name == "reply" {
		name = "message"
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return event{}, fmt.Errorf("%w in %s", err, text)
		}
	}
	return event{Type: name, Data: data, ID: e.Cursor}, nil
}
