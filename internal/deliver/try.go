package deliver

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	// reportAfter is how long a try runs before the client is told of it. A
	// record for each of those that are answered at once would cost as much as
	// the answers do.
	reportAfter = 100 * time.Millisecond
	// replyTimeout bounds one produce call; what was not taken is sent again.
	replyTimeout = 10 * time.Second
	// retryInterval is the pause before what the broker did not take is sent again,
	// mayInterval how often a reply looks whether it may be produced.
	retryInterval = time.Second
	mayInterval   = 100 * time.Millisecond
)

// headerReplay marks a dead letter that was put back on its topic. It is tried
// anew although its stream has been done.
const headerReplay = "osmosis-replay"

// Why a request is given up whose last try did not fail in this process.
const (
	unknownReason = "its tries are used up; why the last one failed is not known, since there was no room for that in the progress that was committed"
	cutReason     = "the answer broke off: the gateway that had it was stopped, was killed or was out of reach of Kafka for too long"
)

var killerReason = fmt.Sprintf("%d tries were cut short because the gateway that made them was killed or was out of reach of Kafka for too long; the request may be what ends it", maxCuts)

// letter is what is known of why a request was given up by who had it before.
func (p past) letter(request record.Request) letter {
	l := letter{request: request, attempts: p.failed, code: p.code, reason: p.reason}
	if l.reason == "" {
		l.reason = cmp.Or(http.StatusText(p.code), unknownReason)
	}
	return l
}

// try has a record answered, and sees to what follows from the answer. It runs
// on a goroutine of its own, and ends with one of the queue's done and park.
func (d *Delivery) try(j *job) {
	log := d.log.WithLazy(d.fields(zap.Int32("partition", j.partition().number), zap.Int64("offset", j.record.Offset), zap.String("stream", j.id))...)
	request, err := record.ParseRequest(j.record.Record)
	options := d.options()
	_, replay := j.record.Header(headerReplay)
	if replay {
		request.Expires = time.Time{} // its client has gone, and somebody wants it done all the same
	}
	switch {
	case j.letter != nil:
		d.queue.aside(j)
		d.bury(j, log, options, *j.letter)
		return
	case err != nil:
		d.bury(j, log, options, letter{request: addressee(j), reason: err.Error()})
		return
	case j.again && !replay:
		log.Debug("request was done before")
		d.queue.done(j)
		return
	case d.control.has(j.id):
		log.Debug("request was cancelled")
		d.queue.done(j)
		return
	case j.past.givenUp || j.past.failed >= options.Attempts:
		// Whoever counted them did not get to the dead letter.
		d.bury(j, log, options, j.past.letter(request))
		return
	case j.past.started && !options.RetryStarted:
		d.bury(j, log, options, letter{request: request, attempts: j.past.failed + 1, reason: cutReason})
		return
	case j.past.cuts >= maxCuts:
		d.bury(j, log, options, letter{request: request, attempts: j.past.failed + j.past.cuts, reason: killerReason})
		return
	case expired(request):
		if j.past.failed == 0 {
			// It stays on its topic until that forgets it; its stream has ended by itself.
			log.Warn("request expired before it was tried")
			d.queue.done(j)
			return
		}
		d.bury(j, log, options, letter{request: request, attempts: j.past.failed, reason: "expired before it could be tried again"})
		return
	case !d.may(j):
		d.queue.park(j, retryInterval)
		return
	}
	started := func(ctx context.Context) error {
		if d.queue.started(j) {
			return d.handovers.started(ctx, j)
		}
		return d.committer.now(ctx, j.partition())
	}
	result := d.answer(j, request, j.past.number(), started, options)
	switch result.verdict {
	case replied, calledOff:
		d.queue.done(j)
	case cut:
		// Whoever has the partition next, or has it already, tries it again unless
		// half an answer is out.
		log.Info("try cut short", zap.Error(result.err))
		d.queue.cutShort(j, errors.Is(result.err, errDrained) || errors.Is(result.err, errMoved))
		d.queue.park(j, retryInterval)
	default:
		d.fail(j, log, options, request, result)
	}
}

func expired(r record.Request) bool { return !r.Expires.IsZero() && !time.Now().Before(r.Expires) }

// fail counts a failed try. The count is committed before anything else is done
// about it: otherwise who takes over would not know of this try. What follows from
// a try that was handed over is for the partition's owner to see to.
func (d *Delivery) fail(j *job, log *zap.Logger, options Options, request record.Request, result result) {
	var pause time.Duration
	if len(result.reason) > maxReason {
		result.reason = strings.ToValidUTF8(result.reason[:maxReason], "")
	}
	n, last := d.queue.failed(j, cause{result.code, result.reason}, func(n int) (time.Duration, bool) {
		pause = max(pauseAfter(n, options), min(result.retryAfter, maxRetryAfter))
		return pause, result.verdict == hopeless || result.verdict == broken && !options.RetryStarted || n >= options.Attempts ||
			!request.Expires.IsZero() && time.Now().Add(pause).After(request.Expires)
	})
	log.Debug("try failed", zap.Int("attempt", n), zap.Int("code", result.code), zap.String("reason", result.reason), zap.Duration("pause", pause))
	if d.queue.standing(j) != handed {
		if err := d.committer.now(j.partition().tries, j.partition()); err != nil {
			d.queue.park(j, retryInterval) // the partition is lost
			return
		}
		if last {
			d.bury(j, log, options, letter{request: request, attempts: n, code: result.code, reason: result.reason})
			return
		}
	}
	if !last {
		d.report(j, request, record.Status{
			Status: record.StateRetrying, Attempt: n, Code: result.code, Reason: result.reason, RetryAt: time.Now().Add(pause),
		})
	}
	d.queue.park(j, pause)
}

// report tells the client how its request stands. It is told once, and what
// cannot be told now is soon out of date.
func (d *Delivery) report(j *job, request record.Request, status record.Status) {
	if request.ReplyTopic == "" || !d.may(j) {
		return
	}
	ctx, cancel := context.WithTimeout(j.partition().tries, replyTimeout)
	defer cancel()
	if err := d.config.Producer.Produce(ctx, request.ReplyTopic, request.ReplyPartition, request.Report(status).Record()); err != nil {
		d.log.Debug("state of a request not told", zap.String("stream", request.StreamID), zap.Error(err))
	}
}

// reply puts a reply on the reply topic, and repeats that until the broker has
// it or the try is lost. While it is not sure that the try is nobody else's, it
// waits. Sent twice a reply does no harm: the first end of a stream is its end.
func (d *Delivery) reply(j *job, r record.Reply, request record.Request) error {
	if request.ReplyTopic == "" {
		return nil
	}
	rec := r.Record()
	tries := j.partition().tries
	for {
		if err := context.Cause(tries); err != nil {
			return err
		}
		if !d.may(j) {
			if d.queue.standing(j) == lost {
				return errLost
			}
			pauseFor(tries, mayInterval)
			continue
		}
		ctx, cancel := context.WithTimeout(tries, replyTimeout)
		err := d.config.Producer.Produce(ctx, request.ReplyTopic, request.ReplyPartition, rec)
		cancel()
		if err == nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrRefused) {
			return err
		}
		pauseFor(tries, retryInterval)
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// addressee is what can be known of a request that cannot be read: who waits for
// its answer, and where.
func addressee(j *job) record.Request {
	r := record.Request{StreamID: j.id, ReplyPartition: -1}
	if topic, ok := j.record.Header(record.HeaderReplyTopic); ok {
		r.ReplyTopic = string(topic)
	}
	const size = 4
	if partition, ok := j.record.Header(record.HeaderReplyPartition); ok && len(partition) == size {
		r.ReplyPartition = int32(binary.BigEndian.Uint32(partition))
	}
	return r
}
