package osmosis

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A reply topic that goes by its workers' clocks is set to the log's time where the
// gateway may do so, and else the log says what to set: at the start, and whenever
// somebody changes it.
func TestReplyTopicHasLogTime(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		core, logs := observer.New(zap.WarnLevel)
		s.app.logger = zap.New(core)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, admin := s.admin()
		setTo := func(value string) {
			t.Helper()
			if _, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: timestampType, Value: &value}}, defaultReplies); err != nil {
				t.Fatal(err)
			}
		}
		expect := func(when, is string, levels ...zapcore.Level) {
			t.Helper()
			if got, err := s.app.inside.client.Setting(ctx, defaultReplies, timestampType); err != nil || got != is {
				t.Errorf("%s: the topic has %s, want %s: %v", when, got, is, err)
			}
			told := logs.TakeAll()
			if len(told) != len(levels) {
				t.Fatalf("%s: %v", when, told)
			}
			for i, e := range told {
				if e.Level != levels[i] || e.ContextMap()["topic"] != defaultReplies {
					t.Errorf("%s: %v", when, e)
				}
			}
		}
		s.app.working.Go(func() { s.app.keepLogTime(ctx, s.app.inside.client) })
		pass(time.Second)
		expect("at the start", logAppendTime, zap.WarnLevel) // kfake's default is CreateTime
		pass(time.Hour)
		expect("an hour later", logAppendTime)
		setTo("CreateTime")
		pass(logTimeEvery)
		expect("after a change", logAppendTime, zap.WarnLevel)

		forbidden := s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Err: kerr.TopicAuthorizationFailed, Count: -1})
		if err := s.cluster.DeleteTopic(defaultReplies); err != nil {
			t.Fatal(err)
		}
		if err := s.cluster.CreateTopic(defaultReplies, 1, nil); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		expect("without the right to it", "CreateTime", zap.ErrorLevel) // once, not every five minutes
		cancel()
		s.app.working.Wait()

		forbidden.Remove()
		s.app.settings.create.Off = true
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		s.app.working.Go(func() { s.app.keepLogTime(ctx, s.app.inside.client) })
		pass(time.Hour)
		expect("with create off", "CreateTime", zap.ErrorLevel)
		setTo(logAppendTime)
		pass(logTimeEvery)
		setTo("CreateTime")
		pass(logTimeEvery)
		expect("with create off, when it has changed back", "CreateTime", zap.ErrorLevel)
		cancel()
		s.app.working.Wait()
	})
}

// The same on the embedded broker: a worker whose clock is ahead answers in time
// from then on.
func TestReplyTopicHasLogTimeOnTheEmbeddedBroker(t *testing.T) {
	h := newHouse(t)
	app := &App{Embedded: &Embedded{Directory: filepath.Join(h.home, "kafka"), Listen: "127.0.0.1:0"}}
	h.load(app, &Handler{Topic: testTopic})
	i := only[*inside](t, insides)
	is := func() string {
		text, err := i.client.Setting(t.Context(), defaultReplies, timestampType)
		if err != nil {
			t.Log(err)
		}
		return text
	}
	h.eventually("the reply topic is made", func() bool { return is() == logAppendTime })
	if err := i.client.Set(t.Context(), defaultReplies, timestampType, "CreateTime"); err != nil {
		t.Fatal(err)
	}
	h.load(app, &Handler{Topic: testTopic, MaxBody: 100})
	h.eventually("it has the log's time", func() bool { return is() == logAppendTime })
	a := h.do("POST", "/orders")
	q := a.queued(t)
	worker, err := kgo.NewClient(kgo.SeedBrokers(only[*brokerEntry](t, brokers).embedded.Address()))
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	rec := record.Reply{StreamID: q.ID, Body: []byte("two days ahead")}.Record()
	ahead := &kgo.Record{Topic: defaultReplies, Key: []byte(q.ID), Value: rec.Value, Timestamp: time.Now().Add(48 * time.Hour)}
	for _, header := range rec.Headers {
		ahead.Headers = append(ahead.Headers, kgo.RecordHeader{Key: header.Key, Value: header.Value})
	}
	if err := worker.ProduceSync(t.Context(), ahead).FirstErr(); err != nil {
		t.Fatal(err)
	}
	h.do("GET", a.Header.Get("Location")+"/result", "Prefer", "wait=20").want(t, 200, "two days ahead")
}
