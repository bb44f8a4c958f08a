package broker

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func plain(values ...string) []byte { return batch(0, time.Now(), time.Now(), values...) }

func TestProduce(t *testing.T) {
	bubble(t, "gives each batch its verdict", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 3, nil)
		w.write(w.writer(), "orders", 1, "before")
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Partitions: []int32{2}, Err: kerr.NotEnoughReplicas})
		got, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a", "b")}, {1, plain("c")}, {2, plain("d")}})
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		for _, v := range got {
			switch v.Partition {
			case 2:
				wantError(t, v.Err, kafka.NotEnoughReplicas)
			default:
				if v.Err != nil || v.BaseOffset != int64(v.Partition) {
					t.Fatalf("%+v", v)
				}
			}
		}
		wantValues(t, w.fetch(topic, 0, 0), 2, "a", "b")
		wantValues(t, w.fetch(topic, 1, 0), 2, "before", "c")
		wantValues(t, w.fetch(topic, 2, 0), 0)
	})

	bubble(t, "tells why a batch is refused", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		broken := plain("a")
		broken[len(broken)-1]++
		got, err := w.Produce(t.Context(), one, topic, []Batch{{0, broken}})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		wantError(t, got[0].Err, kafka.InvalidMessage)
		if got[0].Message == "" {
			t.Fatal("the broker's message is lost")
		}
	})

	bubble(t, "to a topic of the same name, made anew, is refused by id", func(t *testing.T) {
		w := newWorld(t)
		before := w.make("orders", 1, nil)
		if err := w.DeleteTopic("orders"); err != nil {
			t.Fatal(err)
		}
		after := w.make("orders", 1, nil)
		got, err := w.Produce(t.Context(), one, before, []Batch{{0, plain("a")}})
		if err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
		wantError(t, got[0].Err, ErrUnknownTopicID)
		wantValues(t, w.fetch(after, 0, 0), 0)
		before.ID = TopicID{}
		if got, err = w.Produce(t.Context(), one, before, []Batch{{0, plain("a")}}); err != nil || got[0].Err != nil {
			t.Fatal(got, err)
		}
		wantValues(t, w.fetch(after, 0, 0), 1, "a")
	})

	bubble(t, "that nobody answers is an error in time, and the broker is told how long", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		var told atomic.Int32
		w.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
			told.Store(q.(*kmsg.ProduceRequest).TimeoutMillis)
			return nil, nil, true
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		_, err := w.Produce(ctx, one, topic, []Batch{{0, plain("a")}})
		if err == nil || time.Since(begun) != 3*time.Second {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
		if told := told.Load(); told <= 0 || told > 3000 {
			t.Fatalf("told %d ms", told)
		}
	})

	for name, partitions := range map[string][]int32{
		"too few": {0}, "too many": {0, 1, 1}, "for another": {0, 5}, "none": nil,
	} {
		bubble(t, "believes no verdicts that are "+name, func(t *testing.T) {
			w := newWorld(t)
			topic := w.make("orders", 2, nil)
			w.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
				answer, of := q.ResponseKind().(*kmsg.ProduceResponse), kmsg.NewProduceResponseTopic()
				of.TopicID = topic.ID
				for _, p := range partitions {
					partition := kmsg.NewProduceResponseTopicPartition()
					partition.Partition = p
					of.Partitions = append(of.Partitions, partition)
				}
				answer.Topics = append(answer.Topics, of)
				return answer, nil, true
			})
			_, err := w.Produce(t.Context(), one, topic, []Batch{{0, plain("a")}, {1, plain("b")}})
			if err == nil || !strings.Contains(err.Error(), "verdict") {
				t.Fatal(err)
			}
		})
	}

	bubble(t, "to a broker that is not in the cluster", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		if _, err := w.Produce(t.Context(), 77, topic, []Batch{{0, plain("a")}}); !errors.Is(err, kafka.BrokerNotAvailable) {
			t.Fatal(err)
		}
	})
}
