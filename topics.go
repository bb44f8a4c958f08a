package osmosis

import (
	"context"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// deadLetterRetention is how long dead letters are kept on a topic that the gateway
// has made: longer than brokers keep records by default, since a person has to look
// at them.
const deadLetterRetention = 30 * 24 * time.Hour

// ensure makes a topic where it is missing and the configuration allows it.
func (a *App) ensure(ctx context.Context, client *broker.Client, spec broker.TopicSpec) error {
	ctx, cancel := context.WithTimeout(ctx, a.settings.produceTimeout)
	defer cancel()
	if a.settings.create.Off {
		_, err := client.Topic(ctx, spec.Name)
		return err
	}
	_, err := client.Ensure(ctx, spec)
	return err
}

// requestSpec describes a topic of requests.
func (a *App) requestSpec(topic string) broker.TopicSpec {
	c := a.settings.create
	return broker.TopicSpec{Name: topic, Partitions: c.Partitions, Replication: c.Replication}
}

// deadLetterSpec describes a topic of dead letters.
func (a *App) deadLetterSpec(topic string) broker.TopicSpec {
	spec := a.requestSpec(topic)
	spec.Config = kept(deadLetterRetention)
	return spec
}

// controlSpec describes the control topic. What it says is about requests that have
// not expired, so it is kept for as long as one may live, in whole hours.
func (a *App) controlSpec() broker.TopicSpec {
	life := (a.settings.ttl + time.Hour - 1).Truncate(time.Hour)
	return broker.TopicSpec{Name: controlTopic, Partitions: 1, Replication: a.settings.create.Replication, Config: kept(life)}
}

// specFor describes the topic that a delivery puts a record on.
func (a *App) specFor(topic string, rec record.Record) broker.TopicSpec {
	if topic == controlTopic {
		return a.controlSpec()
	}
	if _, dead := rec.Header(deliver.HeaderDeadTopic); dead {
		return a.deadLetterSpec(topic)
	}
	return a.requestSpec(topic)
}

// kept are the settings of a topic whose records are deleted after a time.
func kept(d time.Duration) map[string]string {
	return map[string]string{"cleanup.policy": "delete", "retention.ms": broker.Millis(d)}
}
