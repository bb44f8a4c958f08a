//go:build e2e

package main

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// run is a small run in which all went well: requests 0 to 2 of one sender got
// 202 and two parts of an answer each, request 3 was refused, 4 and 5 may be
// queued, and 4 is.
type run struct {
	history
	requests, replies []*kgo.Record
}

func goodRun(t *testing.T) *run {
	t.Helper()
	r := &run{}
	for n, verdict := range []verdict{verdictAccepted, verdictAccepted, verdictAccepted, verdictRefused, verdictUnclear, verdictUnknown} {
		a := r.begin("key")
		a.verdict, a.accepted.ID = verdict, fmt.Sprintf("stream-%d", n)
		if verdict == verdictRefused || verdict == verdictUnknown {
			continue
		}
		post := httptest.NewRequest("POST", path(n), nil)
		post.Header.Set("Content-Type", contentType)
		rec, err := record.FromHTTP(post, body(n), record.Meta{StreamID: a.accepted.ID})
		if err != nil {
			t.Fatal(err)
		}
		rec.Key = []byte("key")
		r.requests = append(r.requests, place(rec, len(r.requests)))
		if verdict != verdictAccepted {
			continue
		}
		for part := range 2 {
			reply := record.Reply{StreamID: a.accepted.ID, Status: 200, Body: answerOf(n, part, body(n)), More: part == 0}
			id := fmt.Sprintf("life-7-%d", len(r.replies))
			r.replies = append(r.replies, place(reply.Record(), len(r.replies)))
			a.events = append(a.events, event{Type: "message", Data: string(reply.Body), ID: id})
			if part == 1 {
				a.events = append(a.events, event{Type: "end", Data: `{"status":"replied","code":200}`, ID: id + "-end"})
			}
		}
	}
	return r
}

// place puts a record into the log.
func place(rec record.Record, offset int) *kgo.Record {
	r := &kgo.Record{Partition: 7, Offset: int64(offset), Key: rec.Key, Value: rec.Value}
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

// complaints checks a run.
func (r *run) complaints() (c counts, all []string) {
	complain := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	r.checkRequests(&c, r.requests, complain)
	r.checkStreams(&c, r.replies, complain)
	return c, all
}

// The judge of the fault tests is judged itself: each thing that may go wrong
// is done to a run in which all went well.
func TestHistoryCheck(t *testing.T) {
	good := goodRun(t)
	good.replies = append(good.replies, good.replies[4]) // a worker answers again
	c, all := good.complaints()
	if len(all) > 0 || c.accepted != 3 || c.refused != 1 || c.unclear != 1 || c.unclearQueued != 1 || c.unknown != 1 || c.unknownQueued != 0 ||
		c.records != 4 || c.replies != 6 || c.ended != 3 || c.repeats != 1 {
		t.Errorf("a good run: %+v %q", c, all)
	}
	for name, harm := range map[string]func(r *run){
		"request lost":             func(r *run) { r.requests = slices.Delete(r.requests, 1, 2) },
		"request twice":            func(r *run) { r.requests = append(r.requests, r.requests[1]) },
		"unclear request twice":    func(r *run) { r.requests = append(r.requests, r.requests[3]) },
		"refused request queued":   func(r *run) { r.attempts[4].verdict = verdictRefused },
		"body changed":             func(r *run) { r.requests[1].Value = append(slices.Clone(r.requests[1].Value), 0) },
		"body of another":          func(r *run) { r.requests[1].Value = body(2) },
		"key changed":              func(r *run) { r.requests[1].Key = nil },
		"key out of order":         func(r *run) { r.requests[0], r.requests[1] = r.requests[1], r.requests[0] },
		"key in another partition": func(r *run) { r.requests[3].Partition = 8 },
		"another stream":           func(r *run) { r.attempts[1].accepted.ID = r.attempts[2].accepted.ID },
		"a request nobody sent":    func(r *run) { r.attempts = r.attempts[:4] },
		"no answer":                func(r *run) { r.replies = slices.Delete(r.replies, 2, 4) },
		"event lost":               func(r *run) { r.attempts[1].events = slices.Delete(r.attempts[1].events, 0, 1) },
		"event twice":              func(r *run) { e := r.attempts[1].events; r.attempts[1].events = slices.Insert(e, 0, e[0]) },
		"events out of order":      func(r *run) { e := r.attempts[1].events; e[0], e[1] = e[1], e[0] },
		"event of another":         func(r *run) { r.attempts[1].events[0] = r.attempts[2].events[0] },
		"id of another record":     func(r *run) { r.attempts[1].events[0].ID = "life-7-4" },
		"id of another life": func(r *run) {
			r.attempts[1].events[0].ID = strings.Replace(r.attempts[1].events[0].ID, "life", "death", 1)
		},
		"no end":                    func(r *run) { r.attempts[1].events = r.attempts[1].events[:2] },
		"two ends":                  func(r *run) { r.attempts[1].events = append(r.attempts[1].events, r.attempts[1].events[2]) },
		"another end":               func(r *run) { r.attempts[1].events[2].Data = `{"status":"expired"}` },
		"a gap":                     func(r *run) { r.attempts[1].events[0].Type = "gap" },
		"an answer to another body": func(r *run) { swap(r, 1, answerOf(1, 0, body(2))) },
	} {
		r := goodRun(t)
		harm(r)
		if _, all := r.complaints(); len(all) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// swap changes the first part of an answer, in the log and at the client.
func swap(r *run, n int, answer []byte) {
	r.replies[2*n].Value = answer
	r.attempts[n].events[0].Data = string(answer)
}
