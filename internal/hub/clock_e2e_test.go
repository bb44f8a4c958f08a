//go:build e2e

package hub

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A worker's clock is half an hour ahead, beyond the end of its streams. Its replies
// are in time, whosever time the topic keeps, and where that is the log's those that
// are late are not.
func clockAhead(t *testing.T, cluster *kafkatest.Cluster) {
	r := newKafkaRig(t, cluster, "replies.clock", 1, 1, map[string]*string{"message.timestamp.type": kadm.StringPtr("CreateTime")})
	r.hub.Start()
	answer := func(expires time.Duration) Stream {
		t.Helper()
		s := r.stream()
		s.Expires = time.Now().Add(expires)
		ahead := r.reply(s, "one", false)
		ahead.Timestamp = time.Now().Add(30 * time.Minute)
		r.put(ahead)
		return s
	}
	before := []Stream{answer(10 * time.Minute)}
	wantStories(t, r.readAll(r.hub, before)(), "replied: one")
	if err := r.client.Set(r.ctx, r.topic, "message.timestamp.type", "LogAppendTime"); err != nil {
		t.Fatal(err)
	}
	r.until("see the setting in a batch", func() error {
		s := answer(-time.Minute) // expired, so that the log's time makes it late
		if got := r.readAll(r.hub, []Stream{s})()[0]; got.end != record.StateExpired {
			return errors.New(got.String())
		}
		return nil
	})
	wantStories(t, r.readAll(r.hub, []Stream{answer(10 * time.Minute)})(), "replied: one")
	wantStories(t, r.readAll(r.hub, before)(), "replied: one")
}
