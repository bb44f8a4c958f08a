//go:build e2e

package autoscale

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// awaitLook gives the first look that is as it should be.
func awaitLook(t *testing.T, w *Watch, what string, good func(Measurement) bool) Measurement {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var m Measurement
	for {
		next, err := w.Next(ctx, Want{})
		if err != nil {
			t.Fatalf("%s: not seen; the last look was %+v", what, m)
		}
		if m = next; good(m) {
			return m
		}
	}
}

// waitsIn tells whether that waits in the partitions.
func waitsIn(backlog ...int64) func(Measurement) bool {
	return func(m Measurement) bool { return slices.Equal(backlogs(m), backlog) }
}

// A survey of a real Kafka: groups of each kind, transactions, and a topic that is
// made anew.
func TestSurveyOfRealKafka(t *testing.T) {
	t.Parallel()
	servers := kafkatest.Start(t, kafkatest.Options{Properties: map[string]string{"group.consumer.heartbeat.interval.ms": "1000", "group.consumer.min.heartbeat.interval.ms": "500"}}).Addresses()
	client := broker.New(broker.Config{Addresses: servers})
	t.Cleanup(client.Close)
	survey := NewSurvey(SurveyConfig{Broker: client, Every: 250 * time.Millisecond})
	t.Cleanup(survey.Close)
	connect := func(options ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(servers...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	writer := connect(kgo.UnknownTopicRetries(-1))
	admin := kadm.NewClient(writer)
	topic := func(name string, partitions int32) {
		if _, err := admin.CreateTopic(t.Context(), partitions, 1, nil, name); err != nil {
			t.Fatal(err)
		}
	}
	write := func(by *kgo.Client, name string, n int) {
		for range n {
			if err := by.ProduceSync(t.Context(), &kgo.Record{Topic: name, Value: []byte("value")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	watch := func(name, group string) *Watch {
		w := survey.Watch(Watched{Topic: name, Group: group})
		t.Cleanup(w.Close)
		return w
	}

	t.Run("a group that was never seen, and a topic that is not there", func(t *testing.T) {
		w := watch("idle", "idlers")
		awaitLook(t, w, "nothing", waitsIn(0))
		topic("idle", 2)
		write(writer, "idle", 3)
		m := awaitLook(t, w, "three", waitsIn(3, 0))
		if m.Members != 0 {
			t.Fatalf("%+v", m)
		}
		awaitLook(t, watch("idle", "others"), "three", waitsIn(3, 0))
	})

	t.Run("transactions", func(t *testing.T) {
		topic("transactions", 1)
		w := watch("transactions", "readers")
		by := connect(kgo.TransactionalID("writer"))
		for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
			if err := by.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			write(by, "transactions", 2)
			if err := by.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		awaitLook(t, w, "two that are there", waitsIn(2)) // of six offsets
		var offsets kadm.Offsets
		offsets.AddOffset("transactions", 0, 2, -1)
		if err := admin.CommitAllOffsets(t.Context(), "readers", offsets); err != nil {
			t.Fatal(err)
		}
		awaitLook(t, w, "markers alone", waitsIn(0))
	})

	t.Run("a wakening", func(t *testing.T) {
		topic("sleepy", 4)
		w := watch("sleepy", "sleepers")
		awaitLook(t, w, "nothing", waitsIn(0, 0, 0, 0))
		// No look is due for long: it is the record that brings one.
		slow := NewSurvey(SurveyConfig{Broker: client, Every: time.Hour})
		t.Cleanup(slow.Close)
		asleep := slow.Watch(Watched{Topic: "sleepy", Group: "sleepers"})
		if _, err := asleep.Next(t.Context(), Want{Wake: true}); err != nil {
			t.Fatal(err)
		}
		write(writer, "sleepy", 1)
		m, err := asleep.Next(t.Context(), Want{Wake: true})
		if err != nil || !waitsIn(1, 0, 0, 0)(m) {
			t.Fatal(m, err)
		}
	})

	t.Run("members", func(t *testing.T) {
		for name, consume := range map[string]func(ctx context.Context, name string){
			"kafka-go": func(ctx context.Context, name string) {
				reader := kafka.NewReader(kafka.ReaderConfig{Brokers: servers, Topic: name, GroupID: name, MaxWait: 100 * time.Millisecond})
				defer reader.Close()
				for {
					m, err := reader.FetchMessage(ctx)
					if err != nil {
						return
					}
					<-time.After(20 * time.Millisecond)
					_ = reader.CommitMessages(ctx, m)
				}
			},
			"franz-go": func(ctx context.Context, name string) { consumeWith(ctx, connect, name) },
			"franz-go-newer": func(ctx context.Context, name string) {
				consumeWith(ctx, connect, name, kgo.ServerSideBalancer())
			},
		} {
			t.Run(name, func(t *testing.T) {
				topic(name, 1)
				write(writer, name, 1000)
				w := watch(name, name)
				awaitLook(t, w, "all of them", waitsIn(1000))
				ctx, cancel := context.WithCancel(t.Context())
				var consuming sync.WaitGroup
				consuming.Go(func() { consume(ctx, name) })
				m := awaitLook(t, w, "its work time", func(m Measurement) bool { return m.WorkTime > 0 })
				// At least what it sleeps; what the machine adds is not bounded.
				if m.Members != 1 || m.WorkTime < 20*time.Millisecond {
					t.Errorf("%+v", m)
				}
				cancel()
				consuming.Wait()
				awaitLook(t, w, "nobody", func(m Measurement) bool { return m.Members == 0 })
			})
		}
	})

	t.Run("a topic that is made anew", func(t *testing.T) {
		topic("anew", 1)
		write(writer, "anew", 10)
		w := watch("anew", "renewers")
		awaitLook(t, w, "ten", waitsIn(10))
		if _, err := admin.DeleteTopic(t.Context(), "anew"); err != nil {
			t.Fatal(err)
		}
		awaitLook(t, w, "unknown", waitsIn(Unknown))
		topic("anew", 1)
		write(connect(kgo.UnknownTopicRetries(-1)), "anew", 4)
		m := awaitLook(t, w, "four", waitsIn(4))
		if m.Partitions[0].Produced != 14 {
			t.Fatalf("%+v", m)
		}
	})
}

// consumeWith has a member of franz-go's work until ctx ends.
func consumeWith(ctx context.Context, connect func(...kgo.Opt) *kgo.Client, name string, options ...kgo.Opt) {
	member := connect(append([]kgo.Opt{
		kgo.ConsumeTopics(name), kgo.ConsumerGroup(name), kgo.DisableAutoCommit(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}, options...)...)
	defer member.Close()
	for ctx.Err() == nil {
		for _, r := range member.PollRecords(ctx, 1).Records() {
			<-time.After(20 * time.Millisecond)
			_ = member.CommitRecords(ctx, r)
		}
	}
}
