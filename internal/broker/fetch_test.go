package broker

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func wantValues(t *testing.T, f Fetched, next int64, want ...string) {
	t.Helper()
	if f.Err != nil {
		t.Fatal(f.Err)
	}
	if got := values(f); !slices.Equal(got, want) || f.Next != next {
		t.Fatalf("values %q and next %d, want %q and %d", got, f.Next, want, next)
	}
}

func TestFetch(t *testing.T) {
	bubble(t, "gives records as they lie in the log", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		written := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
		r := &kgo.Record{
			Topic: "orders", Key: []byte("k"), Value: []byte("v"), Timestamp: written,
			Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "empty"}},
		}
		if err := w.writer().ProduceSync(t.Context(), r, &kgo.Record{Topic: "orders"}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		f := w.fetch(topic, 0, 0)
		wantValues(t, f, 2, "v", "")
		got := f.Records[0]
		if string(got.Key) != "k" || got.Offset != 0 || !got.Time.Equal(written) || len(got.Headers) != 3 {
			t.Fatalf("%+v", got)
		}
		for i, h := range r.Headers {
			if got.Headers[i].Key != h.Key || string(got.Headers[i].Value) != string(h.Value) {
				t.Fatalf("headers %v, want %v", got.Headers, r.Headers)
			}
		}
		if f.Records[1].Key != nil || f.Records[1].Value != nil || f.Records[1].Offset != 1 {
			t.Fatalf("%+v", f.Records[1])
		}
		if f.HighWatermark != 2 || f.Stable != 2 || f.LogStart != 0 || f.Topic != "orders" || f.Partition != 0 {
			t.Fatalf("%+v", f)
		}
	})

	// kfake does not know the topic's setting, so the batch is what Kafka makes of
	// one: the attribute that says so, and the log's time as the batch's last.
	bubble(t, "gives the log's time where the batch has it", func(t *testing.T) {
		w := newWorld(t, kfake.ClusterID("one that marks batches"))
		topic := w.make("orders", 1, nil)
		said, logged := time.Now().Add(-48*time.Hour), time.Now()
		w.answerFetch(topic, batch(1<<3, said, logged, "a", "b"))
		for _, r := range w.fetch(topic, 0, 0).Records {
			if !r.Time.Equal(logged) || !r.LogTime {
				t.Fatalf("time %v, the log's %t, want %v", r.Time, r.LogTime, logged)
			}
		}
		w.answerFetch(topic, batch(0, said, logged, "a"))
		if r := w.fetch(topic, 0, 0).Records[0]; !r.Time.Equal(said) || r.LogTime {
			t.Fatalf("time %v, the log's %t, want the producer's %v", r.Time, r.LogTime, said)
		}
	})

	// The embedded broker gives the log's time and cannot say so of the batch.
	for _, id := range []string{"kfake", "osmosis-embedded"} {
		bubble(t, "takes the time of "+id+" for the log's", func(t *testing.T) {
			w := newWorld(t, kfake.ClusterID(id))
			topic := w.make("orders", 1, nil)
			w.write(w.writer(), "orders", 0, "a")
			if r := w.fetch(topic, 0, 0).Records[0]; !r.LogTime {
				t.Fatalf("%+v", r)
			}
		})
	}

	for name, codec := range map[string]kgo.CompressionCodec{
		"gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		// In real time: the decoder of zstd has a finalizer, which must not end a
		// bubble's channels.
		t.Run("reads "+name, func(t *testing.T) {
			w := newWorld(t)
			topic := w.make("orders", 1, nil)
			long := string(make([]byte, 10_000))
			w.write(w.writer(kgo.ProducerBatchCompression(codec)), "orders", 0, long, long)
			wantValues(t, w.fetch(topic, 0, 0), 2, long, long)
		})
	}

	bubble(t, "begins in the middle of a batch", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		var batch []*kgo.Record
		for _, v := range []string{"a", "b", "c"} {
			batch = append(batch, &kgo.Record{Topic: "orders", Value: []byte(v)})
		}
		if err := w.writer(kgo.ProducerLinger(10*time.Millisecond)).ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		wantValues(t, w.fetch(topic, 0, 1), 3, "b", "c")
	})

	bubble(t, "waits for what is new, and no longer than it may", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		begun := time.Now()
		wantValues(t, w.fetch(topic, 0, 0), 0)
		if took := time.Since(begun); took < 100*time.Millisecond || took > time.Second {
			t.Fatalf("an empty fetch took %v", took)
		}
	})

	bubble(t, "of several partitions gives each its own", func(t *testing.T) {
		w := newWorld(t)
		orders, replies := w.make("orders", 2, nil), w.make("replies", 1, nil)
		writer := w.writer()
		w.write(writer, "orders", 0, "a")
		w.write(writer, "orders", 1, "b", "c")
		w.write(writer, "replies", 0, "d")
		for name, ids := range map[string]bool{"by id": true, "by name": false} {
			from := []FetchFrom{
				{Topic: "orders", ID: orders.ID, Partition: 0},
				{Topic: "orders", ID: orders.ID, Partition: 1, Offset: 1},
				{Topic: "orders", ID: orders.ID, Partition: 9},
				{Topic: "replies", ID: replies.ID},
			}
			if !ids {
				for i := range from {
					from[i].ID = TopicID{}
				}
			}
			got, err := w.Fetch(t.Context(), FetchRequest{Leader: one, MaxWait: time.Second, MaxBytes: 1 << 20, From: from})
			if err != nil || len(got) != 4 {
				t.Fatal(name, got, err)
			}
			slices.SortFunc(got, func(a, b Fetched) int {
				if a.Topic != b.Topic {
					return int(a.Topic[0]) - int(b.Topic[0])
				}
				return int(a.Partition - b.Partition)
			})
			wantValues(t, got[0], 1, "a")
			wantValues(t, got[1], 2, "c")
			if got[2].Err == nil || got[2].Next != 0 {
				t.Fatal(name, got[2])
			}
			wantValues(t, got[3], 1, "d")
		}
	})
}

// answerFetch answers the next fetch of a topic's partition 0 with these bytes.
func (w *world) answerFetch(of Topic, batches []byte) {
	w.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
		answer := q.ResponseKind().(*kmsg.FetchResponse)
		topic, partition := kmsg.NewFetchResponseTopic(), kmsg.NewFetchResponseTopicPartition()
		topic.TopicID = of.ID
		partition.RecordBatches, partition.HighWatermark = batches, 1
		topic.Partitions = append(topic.Partitions, partition)
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
}

func TestFetchByID(t *testing.T) {
	bubble(t, "of a recreated topic is refused", func(t *testing.T) {
		w := newWorld(t)
		before := w.make("orders", 1, nil)
		w.write(w.writer(), "orders", 0, "old")
		if err := w.DeleteTopic("orders"); err != nil {
			t.Fatal(err)
		}
		after := w.make("orders", 1, nil)
		w.write(w.writer(), "orders", 0, "new", "newer")
		f := w.fetch(before, 0, 1)
		wantError(t, f.Err, ErrUnknownTopicID)
		if f.Next != 1 || len(f.Records) != 0 {
			t.Fatalf("%+v", f)
		}

		// Two lives of one name in one request are told apart.
		got, err := w.Fetch(t.Context(), FetchRequest{Leader: one, MaxWait: time.Second, MaxBytes: 1 << 20, From: []FetchFrom{
			{Topic: "orders", ID: before.ID}, {Topic: "orders", ID: after.ID},
		}})
		if err != nil || len(got) != 2 {
			t.Fatal(got, err)
		}
		if got[0].Err == nil {
			got[0], got[1] = got[1], got[0]
		}
		wantError(t, got[0].Err, ErrUnknownTopicID)
		wantValues(t, got[1], 2, "new", "newer")

		// By name nobody notices, which is why the hub gives the id.
		before.ID = TopicID{}
		wantValues(t, w.fetch(before, 0, 1), 2, "newer")
	})
}

func TestFetchErrors(t *testing.T) {
	bubble(t, "an offset out of range", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.write(w.writer(), "orders", 0, "a", "b", "c")
		if err := w.DeleteRecords("orders", 0, 2); err != nil {
			t.Fatal(err)
		}
		for _, offset := range []int64{1, 4} {
			f := w.fetch(topic, 0, offset)
			wantError(t, f.Err, kafka.OffsetOutOfRange)
			if f.Next != offset {
				t.Fatalf("moved from %d to %d", offset, f.Next)
			}
		}
		if f := w.fetch(topic, 0, 2); f.LogStart != 2 {
			t.Fatalf("log start %d, want 2", f.LogStart)
		}
	})

	bubble(t, "a broker that does not lead the partition", func(t *testing.T) {
		w := newWorld(t, brokers(2))
		topic := w.make("orders", 1, nil)
		topic.Leaders[0] = 1 - topic.Leaders[0]
		wantError(t, w.fetch(topic, 0, 0).Err, kafka.NotLeaderForPartition)
	})

	bubble(t, "a broker that is not in the cluster", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		_, err := w.Fetch(t.Context(), FetchRequest{Leader: 77, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
		wantError(t, err, kafka.BrokerNotAvailable)
	})

	bubble(t, "the whole request", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			answer := q.ResponseKind().(*kmsg.FetchResponse)
			answer.ErrorCode = int16(kafka.InvalidFetchSessionEpoch)
			return answer, nil, true
		})
		_, err := w.Fetch(t.Context(), FetchRequest{Leader: one, MaxBytes: 1 << 20, From: []FetchFrom{{Topic: "orders", ID: topic.ID}}})
		wantError(t, err, kafka.InvalidFetchSessionEpoch)
	})

	// Bytes that are no batch must be an error: without one the reader would ask
	// again at once and for ever.
	for name, bytes := range map[string][]byte{
		"too short":         []byte("short"),
		"garbage":           slices.Repeat([]byte("garbage "), 20),
		"cut off":           append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2}, make([]byte, 80)...),
		"an unknown magic":  append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 9}, make([]byte, 80)...),
		"a negative length": append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 20, 0, 0, 0, 0, 2}, make([]byte, 80)...),
		"a broken checksum": append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0, 2}, make([]byte, 80)...),
	} {
		bubble(t, "batches: "+name, func(t *testing.T) {
			w := newWorld(t)
			topic := w.make("orders", 1, nil)
			w.answerFetch(topic, bytes)
			if f := w.fetch(topic, 0, 0); f.Err == nil || len(f.Records) != 0 {
				t.Fatalf("%+v", f)
			}
		})
	}
}

func TestReadCommitted(t *testing.T) {
	// end runs a transaction that writes values and commits or aborts them.
	end := func(w *world, client *kgo.Client, how kgo.TransactionEndTry, values ...string) {
		w.t.Helper()
		if err := client.BeginTransaction(); err != nil {
			w.t.Fatal(err)
		}
		w.write(client, "replies", 0, values...)
		if err := client.EndTransaction(w.t.Context(), how); err != nil {
			w.t.Fatal(err)
		}
	}

	bubble(t, "aborted records are passed over", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("replies", 1, nil)
		once := w.writer(kgo.TransactionalID("worker"))
		end(w, once, kgo.TryCommit, "a")             // 0, marker 1
		end(w, once, kgo.TryAbort, "wrong", "wrong") // 2 3, marker 4
		w.write(w.writer(), "replies", 0, "plain")   // 5
		end(w, once, kgo.TryCommit, "b")             // 6, marker 7
		end(w, once, kgo.TryAbort, "wrong")          // 8, marker 9
		wantValues(t, w.fetch(topic, 0, 0), 10, "a", "plain", "b")
	})

	bubble(t, "the cursor moves over what is aborted, and over markers", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("replies", 1, nil)
		end(w, w.writer(kgo.TransactionalID("worker")), kgo.TryAbort, "wrong")
		for offset := range int64(2) {
			wantValues(t, w.fetch(topic, 0, offset), 2)
		}
	})

	bubble(t, "an open transaction holds back what is after it", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("replies", 1, nil)
		w.write(w.writer(), "replies", 0, "before")
		once := w.writer(kgo.TransactionalID("worker"))
		if err := once.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		w.write(once, "replies", 0, "within")
		w.write(w.writer(), "replies", 0, "after")
		f := w.fetch(topic, 0, 0)
		wantValues(t, f, 1, "before")
		if f.HighWatermark != 3 || f.Stable != 1 {
			t.Fatalf("high watermark %d and stable %d, want 3 and 1", f.HighWatermark, f.Stable)
		}
		if err := once.EndTransaction(context.Background(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		wantValues(t, w.fetch(topic, 0, 1), 4, "within", "after")
	})

	bubble(t, "two transactions side by side", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("replies", 1, nil)
		good, bad := w.writer(kgo.TransactionalID("good")), w.writer(kgo.TransactionalID("bad"))
		for _, client := range []*kgo.Client{good, bad} {
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
		}
		w.write(good, "replies", 0, "a")
		w.write(bad, "replies", 0, "wrong")
		w.write(good, "replies", 0, "b")
		if err := bad.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
			t.Fatal(err)
		}
		w.write(good, "replies", 0, "c")
		if err := good.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		wantValues(t, w.fetch(topic, 0, 0), 6, "a", "b", "c")
	})
}
