package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// simulateFree is a pretence of one that fills and empties.
func simulateFree(b *Broker, free int64) {
	b.room.mu.Lock()
	defer b.room.mu.Unlock()
	b.room.free = func(string) (int64, bool) { return free, true }
}

// readAll gives the values of a partition by offset.
func readAll(t *testing.T, b *Broker, topic string) map[int64]string {
	t.Helper()
	client, admin := connect(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	ends, err := admin.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	values := make(map[int64]string)
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			values[r.Offset] = string(r.Value)
			next = r.Offset + 1
		})
	}
	return values
}

// raw sends one batch as it is, and gives the broker's code and words.
func raw(t *testing.T, client *kgo.Client, batch []byte) (kmsg.ProduceResponseTopicPartition, error) {
	t.Helper()
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 5000
	topics, err := kadm.NewClient(client).ListTopics(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = "orders", topics["orders"].ID
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	topic.Partitions = append(topic.Partitions, p)
	r.Topics = append(r.Topics, topic)
	details, err := client.Broker(0).Request(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	answer := details.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return answer, kerr.ErrorForCode(answer.ErrorCode)
}

// newProducer asks for a producer id.
func newProducer(t *testing.T, client *kgo.Client) int64 {
	t.Helper()
	r := kmsg.NewPtrInitProducerIDRequest()
	r.ProducerID, r.ProducerEpoch = -1, -1
	answer, err := r.RequestWith(t.Context(), client)
	if err == nil {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return answer.ProducerID
}

// identified is a batch of one record by an idempotent producer.
func identified(id int64, epoch int16, sequence int32, value string) []byte {
	record := kmsg.Record{Value: []byte(value)}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // the length itself is one byte here
	record.Length = int32(len(record.AppendTo(nil)) - len(binary.AppendVarint(nil, int64(record.Length))))
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, ProducerID: id, ProducerEpoch: epoch, FirstSequence: sequence,
		NumRecords: 1, Records: record.AppendTo(nil),
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[attributesAt:], castagnoli))
	return b.AppendTo(nil)
}

// A full disk refuses records in words, with a code after which clients try
// again; it is logged once, and once that it is over.
func TestFullDiskRefusesRecords(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	b := open(t, Config{Directory: t.TempDir(), Logger: zap.New(core)})
	defer b.Close()
	client, admin := connect(t, b, steady()...)
	defer client.Close()
	create(t, admin)
	produce(t, client, &kgo.Record{Topic: "orders", Value: []byte("before")})

	id := newProducer(t, client)
	simulateFree(b, keepFree+100)
	for range 3 {
		answer, err := raw(t, client, identified(id, 0, 0, "refused"))
		if !errors.Is(err, kerr.NotEnoughReplicas) || answer.ErrorMessage == nil || !strings.Contains(*answer.ErrorMessage, "the disk is full") {
			t.Fatalf("answered %v: %v", answer, err)
		}
	}
	if got := logs.FilterMessage("embedded broker takes no records").Len(); got != 1 {
		t.Errorf("logged %d times that records are refused", got)
	}
	// A producer with patience waits for room.
	waiting := make(chan error, 1)
	go func() {
		waiting <- client.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("patient")}).FirstErr()
	}()
	// What the rest is for still works.
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "another"); err != nil {
		t.Errorf("create a topic: %v", err)
	}
	simulateFree(b, keepFree+10_000)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if got := logs.FilterMessage("embedded broker takes records again").Len(); got != 1 {
		t.Errorf("logged %d times that it is over", got)
	}
	if got := readAll(t, b, "orders"); len(got) != 2 || got[0] != "before" || got[1] != "patient" {
		t.Errorf("the topic holds %v", got)
	}
}

func create(t *testing.T, admin *kadm.Client) {
	t.Helper()
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
}

// steady is a client that waits and repeats until its context ends.
func steady() []kgo.Opt {
	return []kgo.Opt{kgo.RecordRetries(1 << 20), kgo.MetadataMinAge(20 * time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond })}
}

// within bounds a test's waiting.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// halfDisk writes only half of what is to go to one file, while it is full.
type halfDisk struct {
	*crashDisk
	name string
	full *bool
}

func (d halfDisk) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	f, err := d.crashDisk.OpenFile(name, flag, perm)
	if err != nil || filepath.Base(name) != d.name {
		return f, err
	}
	return halfFile{f, d.full}, nil
}

type halfFile struct {
	file
	full *bool
}

func (f halfFile) Write(data []byte) (int, error) {
	if !*f.full {
		return f.file.Write(data)
	}
	n, err := f.file.Write(data[:len(data)/2])
	return n, errors.Join(err, errors.New("no space left on device"))
}

// What is written by half is not acknowledged, and is removed: what comes after
// it is read again at the next start.
func TestHalfAnEntryIsRemoved(t *testing.T) {
	for name, write := range map[string]func(c crashClient) error{
		groupsLog:    func(c crashClient) error { return c.commit(tp{"orders", 0}, position{1, "m"}) },
		producersLog: func(c crashClient) error { _, err := c.initProducer(""); return err },
	} {
		inVirtualTime(t, 0, func(t *testing.T, v *virtual) {
			v.make("orders", nil)
			v.stop()
			full := false
			d := v.config.disk.(*crashDisk)
			v.config.kfake = append(v.config.kfake, onDisk(halfDisk{d, name, &full}))
			v.start()
			client, _ := connect(t, v.Broker, kgo.Dialer(v.network.DialContext), kgo.RequestRetries(0))
			defer client.Close()
			c := crashClient{t.Context(), client}
			if err := write(c); err != nil {
				t.Fatal(err)
			}
			full = true
			if err := write(c); err == nil {
				t.Errorf("what could not be written to %s was acknowledged", name)
			}
			full = false
			if err := write(c); err != nil {
				t.Fatal(err)
			}
			log, err := d.ReadFile(filepath.Join(dataDirectory(v.config.Directory), name))
			if err != nil {
				t.Fatal(err)
			}
			if texts, whole := entries(log); whole != len(log) || len(texts) < 2 {
				t.Errorf("%d of %d bytes of %s can be read", whole, len(log), name)
			}
		})
	}
}
