package broker

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func wantOffsets(t *testing.T, got, want map[int32]int64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("offsets %v, want %v", got, want)
	}
}

func TestOffsets(t *testing.T) {
	bubble(t, "at the start, the end and a time", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 3, map[string]string{"message.timestamp.type": "LogAppendTime"})
		writer := w.writer()
		w.write(writer, "orders", 0, "a", "b")
		pass(time.Minute)
		middle := time.Now().UnixMilli()
		w.write(writer, "orders", 0, "c", "d", "e")
		if err := w.DeleteRecords("orders", 0, 1); err != nil {
			t.Fatal(err)
		}
		all := []int32{0, 1, 2}
		for name, c := range map[string]struct {
			at   int64
			want map[int32]int64
		}{
			"start":                 {LogStart, map[int32]int64{0: 1, 1: 0, 2: 0}},
			"end":                   {HighWatermark, map[int32]int64{0: 5, 1: 0, 2: 0}},
			"time between":          {middle, map[int32]int64{0: 2, 1: 0, 2: 0}},
			"time before":           {1, map[int32]int64{0: 1, 1: 0, 2: 0}},
			"time later than all":   {middle + time.Hour.Milliseconds(), map[int32]int64{0: 5, 1: 0, 2: 0}},
			"beginning of the time": {0, map[int32]int64{0: 1, 1: 0, 2: 0}},
		} {
			got, err := w.Offsets(t.Context(), topic, all, c.at)
			if err != nil {
				t.Fatal(name, err)
			}
			if !maps.Equal(got, c.want) {
				t.Fatalf("%s: %v, want %v", name, got, c.want)
			}
		}
	})

	bubble(t, "at a time later than all are no later than a record that comes meanwhile", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
		writer := w.writer()
		w.write(writer, "orders", 0, "a", "b")
		pass(time.Minute)
		questions := 0
		w.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			if questions++; questions == 2 {
				w.SleepControl(func() { w.write(writer, "orders", 0, "new") })
			}
			return nil, nil, false
		})
		got, err := w.Offsets(t.Context(), topic, []int32{0}, time.Now().UnixMilli())
		if err != nil || questions != 2 {
			t.Fatal(err, questions)
		}
		wantOffsets(t, got, map[int32]int64{0: 2})
	})

	bubble(t, "of a partition without an answer are missing, not zero", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 3, nil)
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Partitions: []int32{1}, Err: kerr.NotLeaderForPartition})
		got, err := w.Offsets(t.Context(), topic, []int32{0, 1, 2}, HighWatermark)
		wantError(t, err, kafka.NotLeaderForPartition)
		wantOffsets(t, got, map[int32]int64{0: 0, 2: 0})
	})

	bubble(t, "of a partition that is not told are missing", func(t *testing.T) {
		for name, at := range map[string]int64{"start": LogStart, "end": HighWatermark} {
			w := newWorld(t)
			topic := w.make("orders", 2, nil)
			w.ControlKey(int16(kmsg.ListOffsets), func(q kmsg.Request) (kmsg.Response, error, bool) {
				answer := q.ResponseKind().(*kmsg.ListOffsetsResponse)
				of := kmsg.NewListOffsetsResponseTopic()
				of.Topic = "orders"
				for _, p := range []int32{0, 7} { // 0 with offset -1, 1 left out, 7 not asked for
					partition := kmsg.NewListOffsetsResponseTopicPartition()
					partition.Partition, partition.Offset = p, int64(p)-1
					of.Partitions = append(of.Partitions, partition)
				}
				answer.Topics = append(answer.Topics, of)
				return answer, nil, true
			})
			got, err := w.Offsets(t.Context(), topic, []int32{0, 1}, at)
			if err == nil {
				t.Fatal(name, "no error")
			}
			wantOffsets(t, got, map[int32]int64{})
			w.Cluster.Close()
		}
	})

	bubble(t, "of partitions that nobody leads are an error", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 3, nil)
		topic.Leaders[1] = -1
		got, err := w.Offsets(t.Context(), topic, []int32{0, 1, 2, 3, -1}, HighWatermark)
		wantError(t, err, kafka.LeaderNotAvailable)
		for _, p := range []string{"partition 1:", "partition 3:", "partition -1:"} {
			if !strings.Contains(err.Error(), p) {
				t.Fatalf("%v does not name %s", err, p)
			}
		}
		wantOffsets(t, got, map[int32]int64{0: 0, 2: 0})
	})

	bubble(t, "come from each leader, and one that is silent holds up no other", func(t *testing.T) {
		w := newWorld(t, brokers(3))
		w.make("orders", 6, nil)
		for p := range int32(6) {
			if err := w.MoveTopicPartition("orders", p, p%3); err != nil {
				t.Fatal(err)
			}
		}
		topic := w.topic("orders")
		w.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return nil, nil, w.CurrentNode() == 1 // taken, and never answered
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begun := time.Now()
		got, err := w.Offsets(ctx, topic, []int32{0, 1, 2, 3, 4, 5}, HighWatermark)
		if err == nil {
			t.Fatal("no error")
		}
		wantOffsets(t, got, map[int32]int64{0: 0, 2: 0, 3: 0, 5: 0})
		if took := time.Since(begun); took > 4*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}
