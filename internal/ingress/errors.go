package ingress

import (
	"context"
	"errors"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// The errors of Produce. Each is wrapped with the topic, and with what is known
// of the cause. After all but ErrUnclear the record is surely not on the topic.
var (
	// ErrFull: as many records wait for this topic as the queue holds. The
	// broker is slower than what comes in; try again in a moment.
	ErrFull = errors.New("the queue for the broker is full, nothing was queued; try again in a moment")

	// ErrTooLarge: the record alone is larger than the broker, the topic or
	// the queue takes.
	ErrTooLarge = errors.New("the record is larger than the broker takes; send a smaller one, or raise message.max.bytes of the broker and max.message.bytes of the topic")

	// ErrTopicMissing: the topic does not exist and was not created.
	ErrTopicMissing = errors.New("the topic does not exist; create it, or allow its creation")

	// ErrRefused: the broker refused the record and would do so again: not
	// authorised, an invalid record, a policy. Wraps the kafka.Error.
	ErrRefused = errors.New("the broker refused the record; see the cause, repeating it as it is does not help")

	// ErrUnclear: the record was sent and no answer came in time, so that it
	// may be on the topic or not. Repeat it only if having it twice does no harm.
	ErrUnclear = errors.New("the broker did not answer in time, and the record may have been queued; repeat it only if that does no harm")

	// ErrUnavailable: the record's time passed before it could be sent, for
	// example because the broker is out of reach. Try again later.
	ErrUnavailable = errors.New("the broker could not take the record in time, nothing was queued; try again later")

	// ErrClosed: the producer was closed before the record was sent.
	ErrClosed = errors.New("the producer is closed, nothing was queued; try again at another one")
)

// verdict is what a broker's answer to a batch means.
type verdict int

const (
	accepted verdict = iota
	// unclear: the batch may be in the log. The same bytes are sent again.
	unclear
	// later: surely not in the log, and may well be taken a little later.
	later
	// estranged: surely not in the log by this try, and the broker's memory of
	// the producer id is not ours. A new id is needed.
	estranged
	// gone: surely not in the log, because the topic is not there or is another one.
	gone
	// oversized: surely not in the log, too large together.
	oversized
	// invalid: surely not in the log, because of at least one of its records.
	invalid
	// refused: surely not in the log, and will not be.
	refused
)

// judge tells what a partition's error code means. What it does not know is
// unclear: that errs on the side of sending the same bytes again, which is
// always safe. NotLeaderForPartition is among the unclear ones because a
// leader that loses its office while it waits for the replicas answers with it
// after it has appended.
func judge(err error) verdict {
	if err == nil {
		return accepted
	}
	var code kafka.Error
	if !errors.As(err, &code) {
		return unclear
	}
	switch code {
	case kafka.NotEnoughReplicas, kafka.ThrottlingQuotaExceeded:
		return later
	case kafka.OutOfOrderSequenceNumber, kafka.UnknownProducerId, kafka.InvalidProducerEpoch,
		kafka.InvalidProducerIDMapping, kafka.ProducerFenced:
		return estranged
	case kafka.UnknownTopicOrPartition, broker.ErrUnknownTopicID, broker.ErrInconsistentTopicID:
		return gone
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge:
		return oversized
	case kafka.InvalidRecord, kafka.InvalidTimestamp, kafka.InvalidMessage:
		return invalid
	case kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.TransactionalIDAuthorizationFailed,
		kafka.InvalidTopic, kafka.InvalidRequest, kafka.InvalidRequiredAcks, kafka.InvalidMessageSize,
		kafka.UnsupportedVersion, kafka.UnsupportedForMessageFormat, kafka.UnsupportedCompressionType,
		kafka.PolicyViolation, kafka.SecurityDisabled:
		return refused
	}
	return unclear
}

// final tells whether asking for a topic or a producer id again is useless.
// InvalidReplicationFactor is not among the codes: Kafka answers with it, too,
// while too few of its brokers are up.
func final(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	return judge(code) == refused || code == kafka.InvalidPartitionNumber || code == kafka.InvalidConfiguration
}
