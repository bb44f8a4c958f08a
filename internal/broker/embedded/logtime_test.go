package embedded

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// times reads n records of a topic's partition 0 and gives their times.
func times(t *testing.T, b *Broker, topic string, n int) []time.Time {
	t.Helper()
	client, _ := connect(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	var got []time.Time
	for len(got) < n {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, r.Timestamp) })
	}
	return got
}

func TestTheLogsTimeCountsWhereTheTopicSaysSo(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b)
	defer client.Close()
	logAppend := map[string]*string{"message.timestamp.type": kadm.StringPtr("LogAppendTime")}
	if _, err := admin.CreateTopic(t.Context(), 1, 1, logAppend, "replies"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Millisecond)
	past, future := began.Add(-48*time.Hour), began.Add(48*time.Hour)
	for _, topic := range []string{"replies", "orders"} {
		for _, said := range []time.Time{past, future} {
			produce(t, client, &kgo.Record{Topic: topic, Timestamp: said})
		}
	}
	ended := time.Now()
	for _, at := range times(t, b, "replies", 2) {
		if at.Before(began) || at.After(ended) {
			t.Errorf("a reply of %v, produced between %v and %v", at, began, ended)
		}
	}
	if got := times(t, b, "orders", 2); !got[0].Equal(past) || !got[1].Equal(future) {
		t.Errorf("times %v, want those of the producer", got)
	}
}

// A producer that marks a batch as having the log's time must not break it:
// kfake would change the times behind the checksum, and the partition could not
// be read any further.
func TestAClaimOfLogTimeBreaksNothing(t *testing.T) {
	directory := t.TempDir()
	b := open(t, Config{Directory: directory})
	client, admin := connect(t, b)
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 1000
	topic, partition := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	described, err := admin.ListTopics(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	topic.Topic, topic.TopicID = "orders", described["orders"].ID
	partition.Records = claim(timestampType)
	topic.Partitions = append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	answer, err := r.RequestWith(t.Context(), client)
	if err != nil || answer.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatal(answer, err)
	}
	produce(t, client, &kgo.Record{Topic: "orders"})
	client.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, Config{Directory: directory})
	defer b.Close()
	times(t, b, "orders", 2)
}

// claim makes a batch of one record, produced in 1970, with these attributes.
func claim(attributes int16) []byte {
	record := kmsg.Record{Value: []byte("v")}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{
		Magic: 2, Attributes: attributes, FirstTimestamp: 1, MaxTimestamp: 1, NumRecords: 1,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, Records: record.AppendTo(nil),
	}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[attributesAt:], castagnoli))
	return batch.AppendTo(nil)
}

// FuzzStamp gives stamp what a producer may send. A whole batch stays one, with
// now as its newest time; nothing else is touched.
func FuzzStamp(f *testing.F) {
	f.Add(claim(0), true)
	f.Add(claim(timestampType), false)
	f.Add([]byte("garbage"), true)
	now := time.UnixMilli(1_800_000_000_000)
	f.Fuzz(func(t *testing.T, batch []byte, logAppend bool) {
		whole := func(b []byte) bool {
			return len(b) >= headerEnd && b[magicAt] == 2 && binary.BigEndian.Uint32(b[crcAt:]) == crc32.Checksum(b[attributesAt:], castagnoli)
		}
		before := string(batch)
		sound := whole(batch)
		stamp(batch, logAppend, now)
		switch {
		case !sound:
			if string(batch) != before {
				t.Fatal("something that is no batch was changed")
			}
		case !whole(batch):
			t.Fatal("the batch is broken")
		case binary.BigEndian.Uint16(batch[attributesAt:])&timestampType != 0:
			t.Fatal("the claim stands")
		case logAppend && binary.BigEndian.Uint64(batch[lastTimeAt:]) != uint64(now.UnixMilli()):
			t.Fatal("the newest time is not now")
		}
	})
}
