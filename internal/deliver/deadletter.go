package deliver

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
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

const (
	// maxReason bounds the text of why a request was given up, in bytes: it may
	// have come from an upstream.
	maxReason = 1 << 10
	// buryPause is how long a request that cannot be buried waits for the next
	// go. It holds up its key meanwhile, and no other.
	buryPause = 5 * time.Second
)

// letter is why a request is given up.
type letter struct {
	request  record.Request
	attempts int
	code     int
	reason   string
	// posted says that the dead letter is on its topic.
	posted bool
	// told says that the log has it that this does not work.
	told bool
}

// bury gives a request up: first the dead letter, then the end of the client's
// stream, then it is done. Whatever of that happens before a crash happens
// again after it, so a dead letter is there at least once.
func (d *Delivery) bury(j *job, log *zap.Logger, options Options, l letter) {
	d.queue.returned(j)
	if len(l.reason) > maxReason {
		l.reason = strings.ToValidUTF8(l.reason[:maxReason], "")
	}
	fields := []zap.Field{zap.Int("attempts", l.attempts), zap.Int("code", l.code), zap.String("reason", l.reason)}
	again := func(what string, err error) {
		if !l.told && d.may(j) {
			// Its key waits for as long as this lasts, so somebody has to know.
			log.Error(what+"; the request is kept until it can be given up", append(fields, zap.String("dead_letter", options.DeadLetter), zap.Error(err))...)
			l.told = true
		}
		j.letter = &l
		d.queue.park(j, buryPause)
	}
	if options.DeadLetter != "" && !l.posted {
		if err := d.post(j, options.DeadLetter, l); err != nil {
			again("dead letter not produced", err)
			return
		}
		l.posted = true
	}
	end := l.request.Report(record.Status{Status: record.StateFailed, Attempt: l.attempts, Code: l.code, Reason: l.reason})
	switch err := d.reply(j, end, l.request); {
	case errors.Is(err, ErrRefused):
		// A stranger's request may name a reply topic that is none. Nobody can be
		// told there, now or later.
		fields = append(fields, zap.NamedError("not_told", err))
	case err != nil:
		again("end of a stream not produced", err)
		return
	}
	if l.posted {
		fields = append(fields, zap.String("dead_letter", options.DeadLetter))
	}
	log.Error("request given up", fields...)
	d.queue.done(j)
}

// post produces the dead letter. One that is too large with what it says besides
// goes as the record that it was, which its own topic has taken.
func (d *Delivery) post(j *job, topic string, l letter) error {
	if !d.may(j) {
		return errLost
	}
	ctx, cancel := context.WithTimeout(j.partition().tries, replyTimeout)
	defer cancel()
	dead := j.record.Record
	dead.Headers = slices.DeleteFunc(slices.Clone(dead.Headers), func(h record.Header) bool {
		return strings.HasPrefix(h.Key, deadPrefix) || h.Key == headerReplay
	})
	bare := dead
	bare.Headers = slices.Clone(dead.Headers)
	add := func(name, value string) {
		dead.Headers = append(dead.Headers, record.Header{Key: name, Value: []byte(value)})
	}
	add(HeaderDeadReason, l.reason)
	if l.code > 0 {
		add(HeaderDeadCode, strconv.Itoa(l.code))
	}
	add(HeaderDeadAttempts, strconv.Itoa(l.attempts))
	add(HeaderDeadTopic, d.config.Topic)
	add(HeaderDeadPartition, strconv.Itoa(int(j.partition().number)))
	add(HeaderDeadOffset, strconv.FormatInt(j.record.Offset, 10))
	add(HeaderDeadTime, strconv.FormatInt(time.Now().UnixMilli(), 10))
	err := d.config.Producer.Produce(ctx, topic, -1, dead)
	if errors.Is(err, ErrTooLarge) {
		err = d.config.Producer.Produce(ctx, topic, -1, bare)
	}
	return err
}
