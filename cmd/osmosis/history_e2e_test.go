//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A history is all that happened in one run of a fault test, seen from outside:
// what clients sent and were answered, what lies on the two topics in the end,
// and what each stream told its client. Its check holds them against each
// other, by the promises of the README:
//
//   - A request that got 202 is on its topic once, byte for byte as it was sent,
//     under the stream id that the client was told.
//   - One whose 503 says that nothing was queued is not on the topic. One whose
//     503 says that it may have been queued is there at most once, and so is one
//     whose connection broke before the answer. There are no other answers.
//   - Requests of one key that were answered are in the order in which they were sent.
//   - A stream tells each reply on the reply topic up to the first that ends the
//     request, once, in the log's order, with the record's place as id; and then
//     one end. What the topic holds after that, since a worker that was
//     interrupted answers again, is not told.
//
// The log is the judge: that a worker answers twice is allowed, that a stream
// differs from the log is not.
type history struct {
	mu       sync.Mutex
	attempts []*attempt
}

// verdict is what a client knows of its request.
type verdict int

const (
	verdictUnknown  verdict = iota // the connection broke before an answer came
	verdictAccepted                // 202
	verdictRefused                 // 503, nothing was queued
	verdictUnclear                 // 503, it may have been queued
)

// attempt is one request, as its client knows it. It belongs to whoever sends
// it, then to whoever follows its stream; the check comes after both.
type attempt struct {
	n       int    // counts the requests of a run; the path names it
	key     string // "": none
	verdict verdict
	fault   string // what must not happen to any request or stream
	lost    string // how the connection broke

	accepted accepted
	events   []event // what the stream told, over all its connections
	// connections counts those that the gateway has answered, and resumed those
	// of them that began behind an event; polls are requests for the JSON form
	// that it has answered.
	connections, resumed, polls int
}

// begin notes a request that is about to be sent.
func (h *history) begin(key string) *attempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := &attempt{n: len(h.attempts), key: key}
	h.attempts = append(h.attempts, a)
	return a
}

// body is what request n carries: up to 2 KiB of any bytes. Every tenth is empty.
func body(n int) []byte {
	seed := [32]byte{}
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	random := rand.New(rand.NewChaCha8(seed))
	b := make([]byte, random.IntN(2048))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	if n%10 == 9 {
		return nil
	}
	return b
}

// path is where request n goes.
func path(n int) string { return "/orders?n=" + strconv.Itoa(n) }

// numberOf is the reverse of path.
func numberOf(path string) (int, error) {
	digits, ok := strings.CutPrefix(path, "/orders?n=")
	if !ok {
		return 0, fmt.Errorf("%q is none of this test's paths", path)
	}
	return strconv.Atoi(digits)
}

// answerOf is what a worker answers as a part of the reply to request n. Its
// first line holds what the worker read against what the client sent.
func answerOf(n, part int, body []byte) []byte {
	return fmt.Appendf(nil, "request %d, %08x\npart %d", n, crc32.ChecksumIEEE(body), part)
}

// counts is what a check has found.
type counts struct {
	requests                            int
	accepted, refused, unclear, unknown int
	unclearQueued, unknownQueued        int // of those, on the topic all the same
	records                             int // on the request topic
	replies, repeats                    int // told, and on the reply topic behind an end
	ended                               int // streams
	connections, resumed, polls         int
}

func (c counts) String() string {
	return fmt.Sprintf("%d requests: %d got 202, %d got 503 (nothing queued), %d got 503 (may have been queued; %d were), %d lost their connection (%d were queued). "+
		"The topic holds %d records, each once and as it was sent. %d streams told %d replies and %d ends, over %d connections, of which %d resumed behind an event, and %d polls; %d repeated replies untold",
		c.requests, c.accepted, c.refused, c.unclear, c.unclearQueued, c.unknown, c.unknownQueued,
		c.records, c.accepted, c.replies, c.ended, c.connections, c.resumed, c.polls, c.repeats)
}

// check reads both topics and holds everything against everything. What does
// not fit fails the test, with the first few cases in words. Clients and workers
// must have finished.
func (h *history) check(t *testing.T, brokers []string) counts {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	c := counts{requests: len(h.attempts)}
	complaints := 0
	complain := func(format string, args ...any) {
		if complaints++; complaints <= 20 {
			t.Errorf(format, args...)
		}
	}
	for _, a := range h.attempts {
		if a.fault != "" {
			complain("request %d: %s", a.n, a.fault)
		}
		c.connections, c.resumed, c.polls = c.connections+a.connections, c.resumed+a.resumed, c.polls+a.polls
	}
	h.checkRequests(&c, readTopic(t, brokers, "orders"), complain)
	h.checkStreams(&c, readTopic(t, brokers, "osmosis.replies"), complain)
	if complaints > 20 {
		t.Errorf("and %d more", complaints-20)
	}
	return c
}

// checkRequests holds what was answered against the request topic.
func (h *history) checkRequests(c *counts, log []*kgo.Record, complain func(string, ...any)) {
	c.records = len(log)
	queued := make(map[int]string) // request → stream id
	newest := make(map[string]int) // key → request
	placed := make(map[string]int32)
	for _, r := range log {
		request, err := record.ParseRequest(recordOf(r))
		if err != nil {
			complain("partition %d, offset %d: %v", r.Partition, r.Offset, err)
			continue
		}
		n, err := numberOf(request.Path)
		if err != nil || n >= len(h.attempts) {
			complain("partition %d, offset %d: nobody sent %s %s: %v", r.Partition, r.Offset, request.Method, request.Path, err)
			continue
		}
		a := h.attempts[n]
		if before, ok := queued[n]; ok {
			complain("request %d (verdict %d) is on the topic twice, as %s and %s", n, a.verdict, before, request.StreamID)
		}
		queued[n] = request.StreamID
		if !bytes.Equal(r.Value, body(n)) || request.Header.Get("Content-Type") != contentType || string(r.Key) != a.key {
			complain("request %d: the topic holds %d bytes of %q with key %q, sent were %d with key %q", n, len(r.Value), request.Header.Get("Content-Type"), r.Key, len(body(n)), a.key)
		}
		if a.key == "" || a.verdict == verdictUnknown {
			continue
		}
		// The log is sorted by partition and offset.
		if last, ok := newest[a.key]; ok && (placed[a.key] != r.Partition || last > n) {
			complain("key %s: request %d in partition %d lies behind %d in partition %d", a.key, n, r.Partition, last, placed[a.key])
		}
		newest[a.key], placed[a.key] = n, r.Partition
	}
	for _, a := range h.attempts {
		id, ok := queued[a.n]
		switch a.verdict {
		case verdictAccepted:
			if c.accepted++; id != a.accepted.ID {
				complain("request %d got 202 for stream %s; the topic has it as %q", a.n, a.accepted.ID, id)
			}
		case verdictRefused:
			if c.refused++; ok {
				complain("request %d was told that nothing was queued, and is on the topic", a.n)
			}
		case verdictUnclear:
			if c.unclear++; ok {
				c.unclearQueued++
			}
		case verdictUnknown:
			if c.unknown++; ok {
				c.unknownQueued++
			}
		}
	}
}

// checkStreams holds what each stream told against the reply topic.
func (h *history) checkStreams(c *counts, log []*kgo.Record, complain func(string, ...any)) {
	type told struct {
		events []event
		ended  bool
	}
	want := make(map[string]*told) // stream id →
	for _, r := range log {
		reply, err := record.ParseReply(recordOf(r))
		if err != nil {
			complain("reply in partition %d, offset %d: %v", r.Partition, r.Offset, err)
			continue
		}
		w := want[reply.StreamID]
		if w == nil {
			w = &told{}
			want[reply.StreamID] = w
		}
		if w.ended {
			c.repeats++
			continue
		}
		place := fmt.Sprintf("-%d-%d", r.Partition, r.Offset)
		w.events = append(w.events, event{Type: "message", Data: string(r.Value), ID: place})
		if reply.Terminal() {
			w.ended = true
			w.events = append(w.events, event{Type: "end", ID: place + "-end"})
		}
	}
	life := "" // of the reply topic; every id begins with it
	for _, a := range h.attempts {
		if a.verdict != verdictAccepted {
			continue
		}
		w := want[a.accepted.ID]
		if w == nil || !w.ended {
			complain("request %d: no worker has ended it", a.n)
			continue
		}
		if len(a.events) != len(w.events) {
			complain("request %d: the stream told %+v over %d connections, the log holds %+v", a.n, a.events, a.connections, w.events)
			continue
		}
		for i, got := range a.events {
			if life == "" {
				life, _, _ = strings.Cut(got.ID, "-")
			}
			expected := w.events[i]
			expected.ID = life + expected.ID
			if got.Type == "end" {
				var end struct {
					Status string
					Code   int
				}
				if err := json.Unmarshal([]byte(got.Data), &end); err != nil || end.Status != "replied" || end.Code != http.StatusOK {
					complain("request %d: the end says %s", a.n, got.Data)
				}
				expected.Data = got.Data
				c.ended++
			} else {
				c.replies++
				if line, _, _ := strings.Cut(got.Data, "\n"); !bytes.HasPrefix(answerOf(a.n, 0, body(a.n)), []byte(line+"\n")) {
					complain("request %d got the answer %q", a.n, got.Data)
				}
			}
			if got != expected {
				complain("request %d: event %d is %+v, the log holds %+v", a.n, i, got, expected)
			}
		}
	}
}

// checkForgotten asks for some streams once more, from behind their end: there
// is nothing left to tell, so the answer is 204.
func (h *history) checkForgotten(t *testing.T, sample int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h.mu.Lock()
	defer h.mu.Unlock()
	step := max(1, len(h.attempts)/sample)
	for i := 0; i < len(h.attempts); i += step {
		a := h.attempts[i]
		if len(a.events) == 0 {
			continue
		}
		if status, events, err := sse(ctx, a.accepted.Stream, a.events[len(a.events)-1].ID, never); err != nil || status != http.StatusNoContent {
			t.Errorf("request %d, asked for from behind its end: %d %+v %v", a.n, status, events, err)
		}
	}
}
