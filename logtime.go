package osmosis

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

const (
	timestampType = "message.timestamp.type"
	logAppendTime = "LogAppendTime"

	// logTimeEvery is how often the reply topic is looked at: others may change it.
	logTimeEvery = 5 * time.Minute
)

// keepLogTime sees to it that the log gives replies their time, until ctx ends. A
// topic that the gateway makes has that setting; one that was there before may
// have CreateTime, so that it is its workers' clocks which say whether a reply came
// before its stream expired. Where the gateway may make topics it sets the setting;
// otherwise, or where the broker does not let it, the log says what to set.
func (a *App) keepLogTime(ctx context.Context, client *broker.Client) {
	topic := a.plan.hub.Topic
	var pauses backoff.Backoff
	var told string // what the log said of it last, empty if all was well
	for {
		is, refused, err := a.correctLogTime(ctx, client, topic)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil: // the topic may not be there yet, and the hub says what is out of reach
			a.logger.Debug("timestamp type of the reply topic not known", zap.String("topic", topic), zap.Error(err))
			if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed) || !pauses.Sleep(ctx) {
				return
			}
			continue
		case is == "" || is == logAppendTime:
			told = ""
		case is != told:
			told = is
			a.logger.Error("replies have their workers' time, by whose clocks a stream may end as expired and be answered later: set message.timestamp.type=LogAppendTime on the reply topic",
				zap.String("topic", topic), zap.String(timestampType, is), zap.NamedError("refused", refused))
		}
		pauses.Reset()
		select {
		case <-ctx.Done():
			return
		case <-time.After(logTimeEvery):
		}
	}
}

// correctLogTime sets the setting of a topic where it is another one and the
// gateway may. It returns what the setting is then, and why it could not be set.
func (a *App) correctLogTime(ctx context.Context, client *broker.Client, topic string) (is string, refused, err error) {
	is, err = client.Setting(ctx, topic, timestampType)
	if err != nil || is == "" || is == logAppendTime || a.settings.create.Off {
		return is, nil, err
	}
	if refused = client.Set(ctx, topic, timestampType, logAppendTime); refused != nil {
		return is, refused, nil
	}
	a.logger.Warn("reply topic set to the log's time: replies had their workers', by whose clocks streams would have ended",
		zap.String("topic", topic), zap.String(timestampType, logAppendTime), zap.String("was", is))
	return logAppendTime, nil, nil
}
