package osmosis

import (
	"net/http"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/embedded"
	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// wantSettings fails unless a topic has that many partitions and these settings.
func (s *gateway) wantSettings(topic string, partitions int32, settings map[string]string) {
	s.t.Helper()
	made, err := s.app.inside.client.Topic(s.t.Context(), topic)
	if err != nil {
		s.t.Fatal(err)
	}
	if made.Partitions() != partitions {
		s.t.Errorf("%s has %d partitions, want %d", topic, made.Partitions(), partitions)
	}
	for name, want := range settings {
		got, err := s.app.inside.client.Setting(s.t.Context(), topic, name)
		if err != nil || got != want {
			s.t.Errorf("%s of %s is %q, want %q: %v", name, topic, got, want, err)
		}
	}
}

// Topics that are made on the way have the settings that what is on them needs, on
// the embedded broker too.
func TestSettingsOfMadeTopics(t *testing.T) {
	for name, local := range map[string]*embedded.Config{"Kafka": nil, "embedded": {}} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				s.app.plan.embedded = local
				r := s.app.repliesTo(s.app.inside)
				dead := record.Record{Value: []byte("order"), Headers: []record.Header{{Key: deliver.HeaderDeadTopic, Value: []byte(testTopic)}}}
				if err := r.Produce(t.Context(), "orders.dlq", -1, dead); err != nil {
					t.Fatal(err)
				}
				s.wantSettings("orders.dlq", defaultPartitions, map[string]string{"cleanup.policy": "delete", "retention.ms": "2592000000"}) // 30 days
				if err := r.Produce(t.Context(), controlTopic, -1, record.Record{Value: []byte("{}")}); err != nil {
					t.Fatal(err)
				}
				s.wantSettings(controlTopic, 1, map[string]string{"cleanup.policy": "delete", "retention.ms": "10800000"}) // 3 hours
				if err := r.Produce(t.Context(), "replies.of.others", -1, record.Record{Value: []byte("{}")}); err != nil {
					t.Fatal(err)
				}
				standard, err := s.app.inside.client.Setting(t.Context(), testTopic, "retention.ms")
				if err != nil {
					t.Fatal(err)
				}
				s.wantSettings("replies.of.others", defaultPartitions, map[string]string{"retention.ms": standard})
			}, func(a *App) { a.Token = &Token{TTL: caddyDuration(2*time.Hour + time.Minute)} })
		})
	}
}

// A client that cancels may be the first to need the control topic.
func TestCancelMakesTheControlTopic(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		s.do(http.MethodDelete, s.path(s.accept())).want(t, http.StatusOK)
		s.wantSettings(controlTopic, 1, map[string]string{"retention.ms": "43200000"}) // the default ttl of 12 hours
	})
}
