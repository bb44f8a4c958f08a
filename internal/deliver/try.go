package deliver

import (
	"context"
	"encoding/binary"
	"errors"
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
)

// headerReplay marks a dead letter that was put back on its topic. It is tried
// anew although its stream has been done.
const headerReplay = "osmosis-replay"

// unknownReason is why a request was given up by a member that did not get to the
// dead letter: only that and the number of tries is committed.
const unknownReason = "its tries are used up; why the last one failed is not known, since the process that made it ended, or lost the partition to another, in the middle"

// try has a record answered, and sees to what follows from the answer. It runs
// on a goroutine of its own, and ends with one of the queue's done and park.
func (g *generation) try(j *job) {
	log := g.d.log.WithLazy(g.fields(zap.Int32("partition", j.partition().number), zap.Int64("offset", j.record.Offset), zap.String("stream", j.id))...)
	request, err := record.ParseRequest(j.record.Record)
	options := g.d.options()
	_, replay := j.record.Header(headerReplay)
	if replay {
		request.Expires = time.Time{} // its client has gone, and somebody wants it done all the same
	}
	switch {
	case j.letter != nil:
		g.queue.aside(j)
		g.bury(j, log, options, *j.letter)
		return
	case err != nil:
		g.bury(j, log, options, letter{request: addressee(j), reason: err.Error()})
		return
	case j.again && !replay:
		log.Debug("request was done before")
		g.queue.done(j)
		return
	case g.d.control.has(j.id):
		log.Debug("request was cancelled")
		g.queue.done(j)
		return
	case j.past.givenUp || j.past.failed >= options.Attempts:
		// Whoever counted them did not get to the dead letter.
		g.bury(j, log, options, letter{request: request, attempts: j.past.failed, reason: unknownReason})
		return
	case j.past.started && !options.RetryStarted:
		// A process ended in the middle of the answer.
		g.bury(j, log, options, letter{request: request, attempts: j.past.failed + 1, reason: errAborted.Error()})
		return
	case expired(request):
		if j.past.failed == 0 {
			// It stays on its topic until that forgets it; its stream has ended by itself.
			log.Warn("request expired before it was tried")
			g.queue.done(j)
			return
		}
		g.bury(j, log, options, letter{request: request, attempts: j.past.failed, reason: "expired before it could be tried again"})
		return
	case !g.holds():
		g.queue.park(j, heartbeat)
		return
	}
	started := func(ctx context.Context) error {
		g.queue.started(j)
		return g.committer.now(ctx)
	}
	attempt := j.past.failed + 1
	if j.past.started {
		// Half an answer of a try that nobody counted is on the stream. This one
		// needs another number, by which its parts are told from those.
		g.queue.failed(j, func(int) bool { return false })
		if err := g.committer.now(g.tries); err != nil {
			g.queue.park(j, heartbeat)
			return
		}
		attempt++
	}
	result := g.answer(j, request, attempt, started, options)
	switch result.verdict {
	case replied, calledOff:
		g.queue.done(j)
	case unsent:
		// What the handler did stays done, but nobody knows: the next owner of
		// the partition tries it again, unless this was the last try.
		log.Warn("reply not produced", zap.Error(result.err))
		g.queue.failed(j, func(int) bool { return false })
		g.queue.park(j, heartbeat)
	default:
		g.fail(j, log, options, request, result)
	}
}

func expired(r record.Request) bool { return !r.Expires.IsZero() && !time.Now().Before(r.Expires) }

// fail counts a failed try. The count is committed before anything else is done
// about it: otherwise who takes over would not know of this try.
func (g *generation) fail(j *job, log *zap.Logger, options Options, request record.Request, result result) {
	var pause time.Duration
	n, last := g.queue.failed(j, func(n int) bool {
		pause = max(pauseAfter(n, options), min(result.retryAfter, maxRetryAfter))
		return result.verdict == hopeless || result.verdict == broken && !options.RetryStarted || n >= options.Attempts ||
			!request.Expires.IsZero() && time.Now().Add(pause).After(request.Expires)
	})
	if err := g.committer.now(g.tries); err != nil {
		g.queue.park(j, heartbeat) // the last commit has it
		return
	}
	if last {
		g.bury(j, log, options, letter{request: request, attempts: n, code: result.code, reason: result.reason})
		return
	}
	next := time.Now().Add(pause)
	log.Debug("try failed", zap.Int("attempt", n), zap.Int("code", result.code), zap.String("reason", result.reason), zap.Duration("pause", pause))
	g.report(request, record.Status{
		Status: record.StateRetrying, Attempt: n, Code: result.code, Reason: result.reason, RetryAt: next,
	})
	g.queue.park(j, pause)
}

// report tells the client how its request stands. It is told once, and what
// cannot be told now is soon out of date.
func (g *generation) report(request record.Request, status record.Status) {
	if request.ReplyTopic == "" || g.ended() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(g.tries, replyTimeout)
	defer cancel()
	if err := g.d.config.Producer.Produce(ctx, request.ReplyTopic, request.ReplyPartition, request.Report(status).Record()); err != nil {
		g.d.log.Debug("state of a request not told", zap.String("stream", request.StreamID), zap.Error(err))
	}
}

// reply puts a reply on the reply topic, and repeats that until the broker has
// it or the generation is over. Sent twice it does no harm: the first end of a
// stream is its end.
func (g *generation) reply(r record.Reply, request record.Request) error {
	if request.ReplyTopic == "" {
		return nil
	}
	rec := r.Record()
	for {
		if err := g.ended(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(g.tries, replyTimeout)
		err := g.d.config.Producer.Produce(ctx, request.ReplyTopic, request.ReplyPartition, rec)
		cancel()
		if err == nil || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrRefused) {
			return err
		}
		if !pauseFor(g.tries, time.Second) {
			return context.Cause(g.tries)
		}
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
