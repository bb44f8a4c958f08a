package broker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestIncarnation(t *testing.T) {
	a := TopicID{0: 1, 15: 2}
	if a.Incarnation() == 0 || a.Incarnation() == (TopicID{0: 1}).Incarnation() || a.Incarnation() == (TopicID{15: 2}).Incarnation() {
		t.Fatal("a part of the id is left out")
	}
	if (TopicID{}).Incarnation() != 0 {
		t.Fatal("no id must be incarnation 0")
	}
}

func TestTopic(t *testing.T) {
	bubble(t, "has an id of its own in each of its lives", func(t *testing.T) {
		w := newWorld(t)
		before := w.make("orders", 3, nil)
		if before.ID == (TopicID{}) || before.Partitions() != 3 || before.Name != "orders" {
			t.Fatalf("%+v", before)
		}
		if again := w.topic("orders"); again.ID != before.ID {
			t.Fatal("the id changed without cause")
		}
		if err := w.DeleteTopic("orders"); err != nil {
			t.Fatal(err)
		}
		_, err := w.Topic(t.Context(), "orders")
		wantError(t, err, kafka.UnknownTopicOrPartition)
		if after := w.make("orders", 3, nil); after.ID == before.ID || after.ID.Incarnation() == before.ID.Incarnation() {
			t.Fatal("two lives, one id")
		}
	})

	bubble(t, "is not made by asking", func(t *testing.T) {
		w := newWorld(t, kfake.AllowAutoTopicCreation())
		_, err := w.Topic(t.Context(), "orders")
		wantError(t, err, kafka.UnknownTopicOrPartition)
		if w.TopicInfo("orders") != nil {
			t.Fatal("asking made the topic")
		}
	})

	bubble(t, "names the leaders as they are now", func(t *testing.T) {
		w := newWorld(t, brokers(3))
		before := w.make("orders", 1, nil).Leaders[0]
		to := (before + 1) % 3
		if err := w.MoveTopicPartition("orders", 0, to); err != nil {
			t.Fatal(err)
		}
		if now := w.topic("orders").Leaders[0]; now != to {
			t.Fatalf("leader %d, moved from %d to %d", now, before, to)
		}
	})

	// What a broker says is not believed where it cannot be.
	for name, c := range map[string]struct {
		partitions []int32 // by number, led by broker 0; negative: with no leader
		topics     int
		want       []int32
		err        string
	}{
		"without a leader":      {[]int32{0, ^1}, 1, []int32{0, -1}, ""},
		"in any order":          {[]int32{1, 0}, 1, []int32{0, 0}, ""},
		"beyond the count":      {[]int32{0, 7}, 1, nil, "partition 7 of 2"},
		"named twice":           {[]int32{0, 0}, 1, []int32{0, -1}, ""},
		"of no topic":           {nil, 0, nil, "Unknown Topic"},
		"of more than one":      {[]int32{0}, 2, nil, "Unknown Topic"},
		"none for an odd topic": {nil, 1, []int32{}, ""},
	} {
		bubble(t, "partitions "+name, func(t *testing.T) {
			w := newWorld(t)
			ours := w.make("orders", 1, nil)
			w.ControlKey(int16(kmsg.Metadata), func(q kmsg.Request) (kmsg.Response, error, bool) {
				w.KeepControl()
				if q.GetVersion() != 12 {
					return nil, nil, false // the Transport's own
				}
				answer := q.ResponseKind().(*kmsg.MetadataResponse)
				for range c.topics {
					topic := kmsg.NewMetadataResponseTopic()
					topic.Topic, topic.TopicID = &ours.Name, ours.ID
					for _, p := range c.partitions {
						partition := kmsg.NewMetadataResponseTopicPartition()
						partition.Partition = p
						if p < 0 {
							partition.Partition, partition.Leader, partition.ErrorCode = ^p, -1, kerr.LeaderNotAvailable.Code
						}
						topic.Partitions = append(topic.Partitions, partition)
					}
					answer.Topics = append(answer.Topics, topic)
				}
				return answer, nil, true
			})
			got, err := w.Topic(t.Context(), "orders")
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q in it", err, c.err)
				}
				return
			}
			if err != nil || len(got.Leaders) != len(c.want) {
				t.Fatal(got, err)
			}
			for p, leader := range got.Leaders {
				if leader != c.want[p] {
					t.Fatalf("leaders %v, want %v", got.Leaders, c.want)
				}
			}
		})
	}
}

func TestEnsure(t *testing.T) {
	spec := TopicSpec{Name: "orders", Partitions: 3, Config: map[string]string{"message.timestamp.type": "LogAppendTime"}}

	bubble(t, "makes the topic as described, once", func(t *testing.T) {
		w := newWorld(t)
		made, err := w.Ensure(t.Context(), spec)
		if err != nil || made.Partitions() != 3 || !made.led() {
			t.Fatal(made, err)
		}
		setting, err := w.Setting(t.Context(), "orders", "message.timestamp.type")
		if err != nil || setting != "LogAppendTime" {
			t.Fatal(setting, err)
		}
		again, err := w.Ensure(t.Context(), TopicSpec{Name: "orders", Partitions: 9})
		if err != nil || again.ID != made.ID || again.Partitions() != 3 {
			t.Fatal(again, err)
		}
	})

	bubble(t, "by many at once is one topic", func(t *testing.T) {
		w := newWorld(t)
		w.topicMissing("orders")
		var wait sync.WaitGroup
		ids := make([]TopicID, 20)
		for i := range ids {
			wait.Go(func() {
				made, err := w.Ensure(t.Context(), spec)
				if err != nil || !made.led() {
					t.Error(made, err)
				}
				ids[i] = made.ID
			})
		}
		wait.Wait()
		for _, id := range ids {
			if id != ids[0] || id == (TopicID{}) {
				t.Fatalf("ids %v", ids)
			}
		}
	})

	bubble(t, "loses a race without an error", func(t *testing.T) {
		w := newWorld(t)
		w.ControlKey(int16(kmsg.CreateTopics), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.DropControl()
			go func() { _ = w.CreateTopic("orders", 5, nil) }()
			w.SleepControl(func() { <-time.After(time.Second) })
			return nil, nil, false
		})
		made, err := w.Ensure(t.Context(), spec)
		if err != nil || made.Partitions() != 5 {
			t.Fatal(made, err)
		}
	})

	bubble(t, "waits for the leaders of what it made", func(t *testing.T) {
		w := newWorld(t)
		w.topicMissing("orders")
		begun := time.Now()
		asked := 0
		w.ControlKey(int16(kmsg.Metadata), func(q kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			if q.GetVersion() != 12 || w.TopicInfo("orders") == nil || time.Since(begun) > time.Second {
				return nil, nil, false
			}
			asked++
			answer, topic, name := q.ResponseKind().(*kmsg.MetadataResponse), kmsg.NewMetadataResponseTopic(), "orders"
			topic.Topic = &name
			switch asked {
			case 1:
				topic.ErrorCode = kerr.UnknownTopicOrPartition.Code // this broker has not heard of it
			case 2:
				topic.ErrorCode = kerr.LeaderNotAvailable.Code
			default:
				partition := kmsg.NewMetadataResponseTopicPartition()
				partition.Leader = -1
				topic.Partitions = append(topic.Partitions, partition)
			}
			answer.Topics = append(answer.Topics, topic)
			return answer, nil, true
		})
		made, err := w.Ensure(t.Context(), spec)
		if err != nil || made.Partitions() != 3 || !made.led() {
			t.Fatal(made, err)
		}
		if asked < 3 {
			t.Fatalf("asked %d times", asked)
		}
	})

	bubble(t, "gives up with the context", func(t *testing.T) {
		w := newWorld(t)
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Err: kerr.UnknownTopicOrPartition, Count: -1})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := w.Ensure(ctx, spec)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})

	bubble(t, "says why a topic cannot be made", func(t *testing.T) {
		w := newWorld(t)
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "orders", Err: kerr.PolicyViolation})
		_, err := w.Ensure(t.Context(), spec)
		wantError(t, err, kafka.PolicyViolation)
		if !strings.Contains(err.Error(), `"orders"`) {
			t.Fatalf("%v does not name the topic", err)
		}
	})
}

// topicMissing asks for a topic that is not there, which also makes the client
// know the broker.
func (w *world) topicMissing(name string) {
	w.t.Helper()
	_, err := w.Topic(w.t.Context(), name)
	wantError(w.t, err, kafka.UnknownTopicOrPartition)
}

func TestSetting(t *testing.T) {
	bubble(t, "of a topic", func(t *testing.T) {
		w := newWorld(t)
		w.make("orders", 1, map[string]string{"retention.ms": Millis(time.Hour)})
		got, err := w.Setting(t.Context(), "orders", "retention.ms")
		if err != nil || got != "3600000" {
			t.Fatal(got, err)
		}
		if got, err := w.Setting(t.Context(), "orders", "no.such.setting"); err != nil || got != "" {
			t.Fatal(got, err)
		}
		_, err = w.Setting(t.Context(), "nothing", "retention.ms")
		wantError(t, err, kafka.UnknownTopicOrPartition)
	})
}

func TestSet(t *testing.T) {
	bubble(t, "changes one setting", func(t *testing.T) {
		w := newWorld(t)
		w.make("orders", 1, map[string]string{"retention.ms": Millis(time.Hour)})
		if err := w.Set(t.Context(), "orders", "message.timestamp.type", "LogAppendTime"); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"message.timestamp.type": "LogAppendTime", "retention.ms": "3600000"} {
			if got, err := w.Setting(t.Context(), "orders", name); err != nil || got != want {
				t.Errorf("%s: %q %v", name, got, err)
			}
		}
		wantError(t, w.Set(t.Context(), "nothing", "retention.ms", "1"), kafka.UnknownTopicOrPartition)
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.IncrementalAlterConfigs}, Err: kerr.TopicAuthorizationFailed})
		wantError(t, w.Set(t.Context(), "orders", "retention.ms", "1"), kafka.TopicAuthorizationFailed)
	})
}
