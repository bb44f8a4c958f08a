package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// open starts a broker on a free port; the directory outlives it.
func open(t *testing.T, c Config) *Broker {
	t.Helper()
	c.Listen = "127.0.0.1:0"
	b, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// connect gives a client of the broker and its admin side.
func connect(t *testing.T, b *Broker, options ...kgo.Opt) (*kgo.Client, *kadm.Client) {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(b.Address()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	return client, kadm.NewClient(client)
}

func produce(t *testing.T, client *kgo.Client, records ...*kgo.Record) {
	t.Helper()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestRecordsAndOffsetsOutliveARestart(t *testing.T) {
	directory := t.TempDir()
	b := open(t, Config{Directory: directory})
	client, admin := connect(t, b)
	if _, err := admin.CreateTopic(t.Context(), 2, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	produce(t, client, &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("first")})
	client.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, Config{Directory: directory})
	defer b.Close()
	client, _ = connect(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": {1: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	produce(t, client, &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("second")})
	var got []string
	for len(got) < 2 {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, fmt.Sprint(r.Offset, " ", string(r.Value))) })
	}
	if got[0] != "0 first" || got[1] != "1 second" {
		t.Fatalf("read %q", got)
	}
}

func TestASecondBrokerOnTheSameDirectoryIsRefused(t *testing.T) {
	directory := t.TempDir()
	b := open(t, Config{Directory: directory})
	defer b.Close()
	_, err := Open(Config{Directory: directory, Listen: "127.0.0.1:0"})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), directory) {
		t.Fatalf("got %v", err)
	}
}

func TestATakenPortIsTold(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	directory := t.TempDir()
	if _, err := Open(Config{Directory: directory, Listen: b.Address()}); err == nil || !strings.Contains(err.Error(), b.Address()) {
		t.Fatalf("got %v", err)
	}
	// The failed start has let go of its directory.
	open(t, Config{Directory: directory}).Close()
}

func TestAddressesThatClientsCannotDialAreRefused(t *testing.T) {
	for _, address := range []string{":9092", "0.0.0.0:9092", "[::]:9092", "localhost"} {
		if _, err := Open(Config{Directory: t.TempDir(), Listen: address}); err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("%q: got %v", address, err)
		}
	}
}

func TestTopicsAreNotMadeByAsking(t *testing.T) {
	b := open(t, Config{Directory: t.TempDir()})
	defer b.Close()
	client, admin := connect(t, b, kgo.AllowAutoTopicCreation())
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "unasked", Value: []byte("x")}).FirstErr(); err == nil {
		t.Fatal("a record for a topic that nobody created was taken")
	}
	topics, err := admin.ListTopics(t.Context())
	if err != nil || topics.Has("unasked") {
		t.Fatal(topics.Names(), err)
	}
}

func TestRetentionLeavesTheNewestRecord(t *testing.T) {
	directory := t.TempDir()
	b := open(t, Config{Directory: directory})
	client, admin := connect(t, b)
	if _, err := admin.CreateTopic(t.Context(), 2, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * time.Hour)
	for range 500 {
		produce(t, client, &kgo.Record{Topic: "orders", Partition: 0, Value: []byte("old"), Timestamp: old})
	}
	for i := range 10 {
		produce(t, client, &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("mixed"), Timestamp: old.Add(time.Duration(i) * 20 * time.Minute)})
	}
	client.Close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = open(t, Config{Directory: directory, Retention: time.Hour})
	defer b.Close()
	if err := b.janitor.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, admin = connect(t, b)
	defer client.Close()
	starts, err := admin.ListStartOffsets(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	for partition, want := range map[int32][2]int64{0: {499, 500}, 1: {4, 10}} {
		start, _ := starts.Lookup("orders", partition)
		end, _ := ends.Lookup("orders", partition)
		if start.Offset != want[0] || end.Offset != want[1] {
			t.Errorf("partition %d holds %d to %d, want %v", partition, start.Offset, end.Offset, want)
		}
	}
}
