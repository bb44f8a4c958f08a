package deliver

import (
	"context"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// The headers that a dead letter has besides those of the record that it was.
const (
	// HeaderDeadReason says why it was given up.
	HeaderDeadReason = "osmosis-dead-reason"
	// HeaderDeadCode is the HTTP status of the last try, absent where there was none.
	HeaderDeadCode = "osmosis-dead-code"
	// HeaderDeadAttempts is how often it was tried.
	HeaderDeadAttempts = "osmosis-dead-attempts"
	// HeaderDeadTopic, HeaderDeadPartition and HeaderDeadOffset are where it was.
	HeaderDeadTopic     = "osmosis-dead-topic"
	HeaderDeadPartition = "osmosis-dead-partition"
	HeaderDeadOffset    = "osmosis-dead-offset"
	// HeaderDeadTime is when it was given up, in milliseconds since 1970.
	HeaderDeadTime = "osmosis-dead-time"
)

const deadPrefix = "osmosis-dead-"

// letter is why a request is given up.
type letter struct {
	request  record.Request
	attempts int
	code     int
	reason   string
}

// bury gives a request up: first the dead letter, then the end of the client's
// stream, then it is done. Whatever of that happens before a crash happens
// again after it, so a dead letter is there at least once.
func (g *generation) bury(j *job, log *zap.Logger, options Options, l letter) {
	fields := []zap.Field{zap.Int("attempts", l.attempts), zap.Int("code", l.code), zap.String("reason", l.reason)}
	if options.DeadLetter != "" {
		if err := g.post(j, options.DeadLetter, l); err != nil {
			log.Warn("dead letter not produced", append(fields, zap.String("dead_letter", options.DeadLetter), zap.Error(err))...)
			g.queue.park(j, heartbeat)
			return
		}
		fields = append(fields, zap.String("dead_letter", options.DeadLetter))
	}
	log.Error("request given up", fields...)
	end := l.request.Report(record.Status{Status: record.StateFailed, Attempt: l.attempts, Code: l.code, Reason: l.reason})
	if err := g.reply(end, l.request); err != nil {
		log.Warn("end of a stream not produced", zap.Error(err))
		g.queue.park(j, heartbeat)
		return
	}
	g.queue.done(j)
}

// post produces the dead letter, and repeats that until the broker has it or
// the generation is over.
func (g *generation) post(j *job, topic string, l letter) error {
	dead := j.record.Record
	dead.Headers = slices.DeleteFunc(slices.Clone(dead.Headers), func(h record.Header) bool {
		return len(h.Key) > len(deadPrefix) && h.Key[:len(deadPrefix)] == deadPrefix || h.Key == headerReplay
	})
	add := func(name, value string) {
		dead.Headers = append(dead.Headers, record.Header{Key: name, Value: []byte(value)})
	}
	add(HeaderDeadReason, l.reason)
	if l.code > 0 {
		add(HeaderDeadCode, strconv.Itoa(l.code))
	}
	add(HeaderDeadAttempts, strconv.Itoa(l.attempts))
	add(HeaderDeadTopic, g.d.config.Topic)
	add(HeaderDeadPartition, strconv.Itoa(int(j.partition().number)))
	add(HeaderDeadOffset, strconv.FormatInt(j.record.Offset, 10))
	add(HeaderDeadTime, strconv.FormatInt(time.Now().UnixMilli(), 10))
	for told := false; ; {
		if !g.holds() {
			return errLost
		}
		ctx, cancel := context.WithTimeout(g.tries, replyTimeout)
		err := g.d.config.Producer.Produce(ctx, topic, -1, dead)
		cancel()
		if err == nil {
			return nil
		}
		if !told {
			// Its key waits for as long as this lasts, so somebody has to know.
			g.d.log.Error("dead letter not produced; the request is kept, and tried again to be buried", g.fields(zap.String("dead_letter", topic), zap.Error(err))...)
			told = true
		}
		if !pauseFor(g.tries, time.Second) {
			return context.Cause(g.tries)
		}
	}
}
