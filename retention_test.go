package osmosis

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// A topic that somebody made with too short a retention is told to its owner,
// also when it comes late.
func TestRetention(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		core, logs := observer.New(zap.DebugLevel)
		s.app.logger = zap.New(core)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, admin := s.admin()
		for topic, test := range map[string]struct {
			retention string
			logged    bool
		}{
			"short": {"3599999", true}, "enough": {"3600000", false}, "eternal": {"-1", false},
		} {
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.app.checkRetention(ctx, s.app.inside.client, topic, time.Hour, "raise it")
			}()
			<-time.After(time.Minute)
			synctest.Wait()
			select {
			case <-done:
				t.Errorf("%s: it did not wait for the topic", topic)
			default:
			}
			if _, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &test.retention}, topic); err != nil {
				t.Fatal(err)
			}
			<-done
			told := logs.TakeAll()
			if (len(told) == 1) != test.logged {
				t.Errorf("%s: %v", topic, told)
			}
			if test.logged && (told[0].Level != zap.ErrorLevel || told[0].Message != "raise it" || told[0].ContextMap()["needed"] != "3600000") {
				t.Errorf("%s: %v", topic, told[0])
			}
		}
		// Streams and the time to queue their requests have to fit.
		short := broker.Millis(s.app.settings.ttl)
		if _, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &short}}, defaultReplies); err != nil {
			t.Fatal(err)
		}
		s.app.startRetentionCheck(ctx, s.app.inside)
		s.app.working.Wait()
		if told := logs.TakeAll(); len(told) != 1 || told[0].ContextMap()["topic"] != defaultReplies || told[0].ContextMap()["needed"] != "43210000" {
			t.Errorf("%v", told)
		}
		// It ends with its configuration.
		go func() { <-time.After(time.Minute); cancel() }()
		s.app.checkRetention(ctx, s.app.inside.client, "never made", time.Hour, "raise it")
	})
}
