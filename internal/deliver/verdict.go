package deliver

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// verdict is what became of a try.
type verdict uint8

const (
	// replied: the answer is on the reply topic.
	replied verdict = iota
	// failed: there was none, or one that says to try again.
	failed
	// broken: it broke off after a part of it was sent.
	broken
	// hopeless: no other try will do better.
	hopeless
	// cut: this process cannot go on with it, for reasons of its own.
	cut
	// calledOff: nobody wants it any more.
	calledOff
)

// result is what a try gave.
type result struct {
	verdict    verdict
	code       int
	reason     string
	retryAfter time.Duration
	err        error
}

// result judges the try by what was sent and by the error it ended with.
func (w *response) result(ctx context.Context, err error) result {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := result{verdict: failed, code: w.status, err: err}
	var failure *Failure
	switch cause := context.Cause(ctx); {
	case err == nil && !w.discard:
		return result{verdict: replied}
	case errors.Is(cause, errCancelled):
		return result{verdict: calledOff}
	case errors.Is(err, ErrRefused):
		r.verdict, r.reason = hopeless, "the broker refuses the answer"
		return r
	case errors.Is(err, ErrTooLarge):
		r.verdict, r.reason = hopeless, "the broker takes no record of the answer's size; raise max.message.bytes of the reply topic, or have the site send smaller headers"
		return r
	case cutShort(cause), cutShort(err):
		r.verdict = cut
		if cutShort(cause) {
			r.err = cause
		}
		return r
	case errors.Is(err, errUnsent):
		r.reason = "the answer could not be sent"
	case errors.Is(w.err, errTooLong) || errors.Is(w.err, errLongEvent): // whatever the handler made of it
		r.verdict, r.reason = hopeless, w.err.Error()
		return r
	case err == nil:
		r.reason, r.retryAfter = http.StatusText(w.status), retryAfter(w.sent, time.Now())
	case cause != nil:
		r.reason = cause.Error()
	case errors.As(err, &failure):
		r.code, r.reason = failure.Code, failure.Error()
	default:
		r.reason = err.Error()
	}
	if w.parts > 0 {
		r.verdict = broken
	}
	return r
}
