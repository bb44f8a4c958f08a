package deliver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Handler answers a request, as an http.Handler does. An error means that there
// is no answer; a *Failure says what its status would be.
type Handler interface {
	ServeHTTP(w http.ResponseWriter, r *http.Request) error
}

// Failure is a handler's error with the HTTP status that it stands for.
type Failure struct {
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

const (
	// maxPart is the largest body of one reply record. A broker takes 1 MiB with
	// all headers, unless told otherwise.
	maxPart = 768 << 10
	// flushGrace is how long a flush waits for more, or for the end. What is
	// flushed bit by bit becomes fewer replies, and an answer that is flushed
	// once and ends becomes one.
	flushGrace = 10 * time.Millisecond
)

var (
	errTimeout   = errors.New("no answer within the time allowed")
	errCancelled = errors.New("the request was cancelled")
	errTooLong   = errors.New("the answer is larger than max_response allows")
	errLongEvent = fmt.Errorf("a server-sent event of the answer is larger than %d KiB, the most that one record takes; the site has to send smaller ones", maxPart>>10)
	errShort     = errors.New("the answer is shorter than its Content-Length")
	errAborted   = errors.New("the answer broke off")
)

// answer has a handler answer a request, and puts the answer on the reply topic.
func (d *Delivery) answer(j *job, request record.Request, attempt int, started func(context.Context) error, options Options) result {
	tries := j.partition().tries
	ctx, cancel := context.WithTimeoutCause(tries, options.Timeout, errTimeout)
	defer cancel()
	ctx, callOff := context.WithCancelCause(ctx)
	defer callOff(nil)
	defer d.control.underWay(request.StreamID, func() { callOff(errCancelled) })()

	w := &response{
		d: d, job: j, request: request, attempt: attempt, limit: options.MaxResponse,
		started: func() error { return started(tries) }, header: make(http.Header), mu: newTurn(),
	}
	r, err := replay(ctx, request, attempt)
	if err != nil {
		return result{verdict: hopeless, reason: err.Error()}
	}
	told := d.reportLate(j, request, attempt)
	w.untold = told
	w.began = time.Now()
	err = d.call(options.Handler, w, r)
	until := d.queue.returned(j)
	if cause := context.Cause(ctx); cause == nil || errors.Is(cause, errTimeout) {
		d.work.add(until.Sub(w.began))
	}
	told()
	if err == nil || w.answers(ctx, err) {
		err = w.finish()
	} else {
		w.abandon()
	}
	return w.result(ctx, err)
}

// answers tells whether an error is an answer: a status that no other try would
// change, from a handler that has written nothing and was not cut off. Caddy's
// server answers with the status too, and with the headers that are set by then.
func (w *response) answers(ctx context.Context, err error) bool {
	var failure *Failure
	if context.Cause(ctx) != nil || !errors.As(err, &failure) || failure.Code < http.StatusBadRequest || retryable(failure.Code) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != 0 {
		return false
	}
	w.header.Del("Content-Length") // of a body that was not written
	w.begin(failure.Code)
	return true
}

// call calls the handler. Caddy's reverse_proxy panics with
// http.ErrAbortHandler when an answer breaks off, as net/http asks for.
func (d *Delivery) call(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = errAborted
		default:
			d.log.Error("handler panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = &Failure{Code: http.StatusInternalServerError, Err: fmt.Errorf("handler panicked: %v", p)}
		}
	}()
	return h.ServeHTTP(w, r)
}

// reportLate tells the client that its request is being tried, if that takes a
// while, and has the next commit say so too. After the function that it gives has
// returned, it was told or never is.
func (d *Delivery) reportLate(j *job, request record.Request, attempt int) func() {
	told := make(chan struct{})
	timer := time.AfterFunc(reportAfter, func() {
		defer close(told)
		d.queue.goesOn(j)
		d.report(j, request, record.Status{Status: record.StateDelivering, Attempt: attempt})
	})
	once := newTurn()
	settled := false
	return func() {
		once.Lock()
		defer once.Unlock()
		if !settled && !timer.Stop() {
			<-told
		}
		settled = true
	}
}

// response is the ResponseWriter of a try. What the handler writes is held until
// it flushes, or returns; each becomes a reply.
type response struct {
	d       *Delivery
	job     *job
	request record.Request
	attempt int
	limit   int64
	began   time.Time // when the handler was called
	// started is called once, before the first part of an answer is sent: from
	// then on a crash leaves half an answer.
	started func() error
	// untold has the client told no more that the request is being tried.
	untold func()

	mu      turn
	header  http.Header
	sent    http.Header // as they were when the answer began
	status  int
	length  int64 // as the handler has declared it, -1 where it did not
	size    int64
	buffer  []byte
	parts   int
	events  *events // of an answer that is server-sent events
	discard bool    // an answer that says to try again is not sent
	timer   *time.Timer
	over    bool
	err     error
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Of interim answers (1xx) nothing
// is kept: there is nobody whom they could help.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(status)
}

func (w *response) begin(status int) {
	if w.status != 0 {
		return
	}
	w.job.heard.Store(true)
	if status < http.StatusOK {
		return
	}
	w.status, w.sent, w.length = status, w.header.Clone(), -1
	place(w.sent, w.request.Path)
	if n, err := strconv.ParseInt(w.sent.Get("Content-Length"), 10, 64); err == nil {
		w.length = n
	}
	w.discard = retryable(status)
	if !w.discard {
		w.d.silence.add(time.Since(w.began))
	}
	switch {
	case w.discard:
	case w.length > w.limit:
		w.err = errTooLong
	case isEvents(w.sent):
		w.events = new(events)
	}
}

// Write implements http.ResponseWriter. It blocks while a part is on its way to
// the broker, so that an upstream is read no faster than its answer is taken.
func (w *response) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	w.size += int64(len(b))
	if w.size > w.limit && !w.discard && w.err == nil {
		w.err = errTooLong
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.over:
		return 0, http.ErrHandlerTimeout
	case w.discard:
	case w.events != nil:
		w.events.feed(b)
		for w.err == nil {
			e, ok := w.events.next()
			if !ok {
				break
			}
			if len(e.data) > maxPart {
				w.err = errLongEvent
				break
			}
			w.err = w.send(e.data, e.name, true)
		}
		if w.events.held() > maxPart && w.err == nil {
			w.err = errLongEvent
		}
	default:
		w.buffer = append(w.buffer, b...)
		for len(w.buffer) > maxPart && w.err == nil {
			w.err = w.sendPart(maxPart)
		}
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(b), nil
}

// FlushError is what http.ResponseController.Flush calls.
func (w *response) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	if w.err == nil && !w.over && w.timer == nil && len(w.buffer) > 0 {
		w.timer = time.AfterFunc(flushGrace, w.flush)
	}
	return w.err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// flush sends what the handler has flushed, and what came meanwhile.
func (w *response) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = nil
	if w.over || w.err != nil || len(w.buffer) == 0 {
		return
	}
	w.err = w.sendPart(len(w.buffer))
}

// sendPart sends the first n bytes of the buffer as a part, less those of a
// character that is not complete yet: a part of a text is a text.
func (w *response) sendPart(n int) error {
	for i := 1; i < utf8.UTFMax && i < n; i++ {
		if b := w.buffer[n-i]; utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRune(w.buffer[n-i:n]) {
				n -= i
			}
			break
		}
	}
	part := w.buffer[:n]
	w.buffer = slices.Clone(w.buffer[n:])
	return w.send(part, "", true)
}

// finish sends what is left, as the end.
func (w *response) finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(http.StatusOK)
	w.stop()
	switch {
	case w.err != nil || w.discard:
	case w.length > w.size && w.request.Method != http.MethodHead:
		w.err = errShort
	default:
		w.err = w.send(w.buffer, "", false)
	}
	return w.err
}

// abandon sends nothing more.
func (w *response) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
}

func (w *response) stop() {
	w.over = true
	if w.timer != nil {
		w.timer.Stop()
	}
}

// errUnsent wraps why the broker did not take a reply.
var errUnsent = errors.New("produce reply")

// send puts a reply on the reply topic. Needs the lock, which keeps the parts
// in order.
func (w *response) send(body []byte, event string, more bool) error {
	w.untold()
	if more && w.parts == 0 {
		if err := w.started(); err != nil {
			return fmt.Errorf("%w: %w", errUnsent, err)
		}
		if w.attempt > 1 {
			// What the client has of another try counts for nothing from here on.
			w.d.report(w.job, w.request, record.Status{Status: record.StateDelivering, Attempt: w.attempt})
		}
	}
	r := w.request.Reply(w.status, nil, body)
	r.More, r.Attempt = more, w.attempt
	if more || w.parts > 0 {
		w.parts++
		r.Part = w.parts
	}
	if w.parts <= 1 || !more {
		r.Header = w.sent // the first tells what follows, and the last what the end was
	}
	r.Event = event
	if err := w.d.reply(w.job, r, w.request); err != nil {
		return fmt.Errorf("%w: %w", errUnsent, err)
	}
	return nil
}

// turn is a mutex that is held while a part of an answer waits for the broker,
// however long that takes. Whoever waits for a channel is seen to wait by tests in
// virtual time, and for a sync.Mutex is not.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// Lock and Unlock implement sync.Locker.
func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }
