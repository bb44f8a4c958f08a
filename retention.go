package osmosis

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// checkRetention looks whether a topic keeps its records for as long as they are
// needed, and logs the message where it does not. A topic that the gateway makes
// does; one that was there before has the retention that somebody gave it, and
// only they can change it. It waits for the broker and for the topic.
func (a *App) checkRetention(ctx context.Context, client *broker.Client, topic string, needed time.Duration, message string) {
	const name = "retention.ms"
	var pauses backoff.Backoff
	text, err := client.Setting(ctx, topic, name)
	for ; err != nil; text, err = client.Setting(ctx, topic, name) {
		if errors.Is(err, kafka.TopicAuthorizationFailed) || errors.Is(err, kafka.ClusterAuthorizationFailed) || !pauses.Sleep(ctx) {
			a.logger.Debug("retention not known", zap.String("topic", topic), zap.Error(err))
			return
		}
	}
	kept, err := strconv.ParseInt(text, 10, 64)
	if err != nil || kept < 0 || kept >= needed.Milliseconds() { // below 0 it is for ever
		return
	}
	a.logger.Error(message, zap.String("topic", topic), zap.String(name, text), zap.String("needed", broker.Millis(needed)))
}

// startRetentionCheck checks the reply topic: a stream that may still end has to
// find its replies, or its end would be deleted before it expires.
func (a *App) startRetentionCheck(ctx context.Context, i *inside) {
	if a.plan.embedded != nil {
		return // its janitor keeps them for as long as the configuration says
	}
	a.working.Go(func() {
		a.checkRetention(ctx, i.client, a.plan.hub.Topic, a.settings.ttl+a.settings.produceTimeout,
			"replies are deleted before their streams end: raise retention.ms of the reply topic, or shorten `token { ttl … }`")
	})
}
