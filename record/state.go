package record

import (
	"encoding/json"
	"net/http"
	"time"
)

// State is where a request is in its life, in the words that clients read.
type State string

// The states of a request. Delivering, retrying, failed and cancelled can stand
// in a life-cycle record; queued, replied and expired follow from what is on
// the topics and are never written.
const (
	// StateQueued: the broker has the request, nothing else is known.
	StateQueued State = "queued"
	// StateDelivering: a worker is at it.
	StateDelivering State = "delivering"
	// StateRetrying: a try failed, another will come.
	StateRetrying State = "retrying"
	// StateReplied: the last reply is there. An end.
	StateReplied State = "replied"
	// StateFailed: given up, no reply will come. An end.
	StateFailed State = "failed"
	// StateCancelled: called off. An end.
	StateCancelled State = "cancelled"
	// StateExpired: no answer came in time, which does not mean that nothing
	// was done. An end.
	StateExpired State = "expired"
)

// Status is a change of state that does not end the stream. It is the value of
// a life-cycle record and the data of a status event.
type Status struct {
	// Status is the new state.
	Status State `json:"status"`
	// Attempt is the number of the try that it is about, from 1; 0 where it is
	// not known.
	Attempt int `json:"attempt,omitempty"`
	// Code is the HTTP status that made a try fail; 0 where there was none.
	Code int `json:"code,omitempty"`
	// Reason says in a few words why.
	Reason string `json:"reason,omitempty"`
	// RetryAt is when the next try comes, to the millisecond and in UTC; zero
	// where none comes or it is not known. The try may come later than that,
	// for instance because others are before it.
	RetryAt time.Time `json:"retry_at,omitzero"`
}

// End is how a stream ended. It is the data of an end event.
type End struct {
	// Status is one of the states that are an end.
	Status State `json:"status"`
	// Code is the HTTP status of the final reply, or of the try after which
	// the request was given up; 0 where there is none.
	Code int `json:"code,omitempty"`
	// Headers are those of the final reply, in JSON with lower-cased names.
	// Set-Cookie is left out there: scripts read this, and cookies are often
	// meant to be out of their reach.
	Headers http.Header `json:"-"`
	// Attempts is how often the request was tried; 0 where it is not known.
	Attempts int `json:"attempts,omitempty"`
	// Reason says in a few words why the stream ended otherwise than with a reply.
	Reason string `json:"reason,omitempty"`
}

// Gap stands in a stream where records are gone, or cannot be found from where
// the client stood. It is the data of a gap event.
type Gap struct {
	// From and To are the cursors around what is missing; empty where unknown.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// Reason is one of cursor (the client's cursor is not of this stream),
	// retention (the log begins later), truncated (it ends earlier) and
	// recreated (the topic is another one now).
	Reason string `json:"reason"`
}

// life is the value of a life-cycle record as workers may write it: with the
// number of tries under either name.
type life struct {
	Attempt  int    `json:"attempt"`
	Attempts int    `json:"attempts"`
	Code     int    `json:"code"`
	Reason   string `json:"reason"`
	// RetryAt is read by itself, so that one of another shape loses nothing else.
	RetryAt json.RawMessage `json:"retry_at"`
}

// retryAt gives the time as a Status has it; zero where there is none.
func (l life) retryAt() time.Time {
	var t time.Time
	if len(l.RetryAt) == 0 || json.Unmarshal(l.RetryAt, &t) != nil || !writable(t) {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Millisecond)
}

// writable tells whether RFC 3339, which has four digits for a year, can write
// a time in UTC.
func writable(t time.Time) bool {
	year := t.UTC().Year()
	return 0 <= year && year <= 9999
}

// life reads the value of a life-cycle record. The state stands in the header,
// so a value that is no JSON loses the reason and nothing else.
func (r Reply) life() life {
	var l life
	if json.Unmarshal(r.Body, &l) != nil {
		l = life{}
	}
	l.Attempt = max(l.Attempt, l.Attempts, r.Attempt, 0)
	if l.Code < 100 || l.Code > 599 {
		l.Code = 0
	}
	return l
}

// Progress gives what a life-cycle record says that does not end the stream.
func (r Reply) Progress() Status {
	l := r.life()
	return Status{Status: r.State, Attempt: l.Attempt, Code: l.Code, Reason: l.Reason, RetryAt: l.retryAt()}
}

// End gives how the stream ended, for a record that is Terminal.
func (r Reply) End() End {
	if r.State == "" {
		return End{Status: StateReplied, Code: r.Status, Headers: r.Header, Attempts: r.Attempt}
	}
	l := r.life()
	return End{Status: r.State, Code: l.Code, Attempts: l.Attempt, Reason: l.Reason}
}
