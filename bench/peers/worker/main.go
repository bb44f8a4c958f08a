// Command worker answers requests: it reads request topics and sends what each
// record holds back to where the record says, at once. It serves Osmosis and
// the bare servers alike.
//
//	worker -kafka 127.0.0.1:9092 -client franz-go -topics orders,others
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Flags.
var (
	listen = flag.String("listen", "127.0.0.1:0", "accept connections on this `address` once it works, and do nothing with them")
	_      = flag.String("admin", "", "ignored")
	broker = flag.String("kafka", "127.0.0.1:9092", "Kafka's `address`")
	client = flag.String("client", "franz-go", "`what` consumes and produces: franz-go, or kafka-go (Reader and Writer)")
	topics = flag.String("topics", "orders", "the `topics` that requests are on, with commas; they exist")
)

// The headers that say where an answer goes.
const (
	correlationID  = "kafka_correlationId"
	replyTopic     = "kafka_replyTopic"
	replyPartition = "kafka_replyPartition"
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	names := strings.Split(*topics, ",")
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	defer l.Close()
	switch *client {
	case "franz-go":
		return workFranz(names)
	case "kafka-go":
		return workKafkaGo(names)
	}
	return errors.New("-client is one of franz-go and kafka-go")
}

// workFranz consumes and produces with franz-go, with no linger.
func workFranz(names []string) error {
	c, err := kgo.NewClient(kgo.SeedBrokers(*broker), kgo.ConsumeTopics(names...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	for {
		fetches := c.PollFetches(context.Background())
		fetches.EachRecord(func(rec *kgo.Record) {
			reply := &kgo.Record{Value: rec.Value}
			for _, h := range rec.Headers {
				switch h.Key {
				case correlationID:
					reply.Headers = []kgo.RecordHeader{h}
				case replyTopic:
					reply.Topic = string(h.Value)
				case replyPartition:
					reply.Partition = int32(binary.BigEndian.Uint32(h.Value)) //nolint:gosec // as it was written
				}
			}
			c.Produce(context.Background(), reply, nil)
		})
	}
}

// workKafkaGo consumes and produces with kafka-go's Reader and Writer.
func workKafkaGo(names []string) error {
	w := &kafka.Writer{
		Addr: kafka.TCP(*broker), RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond, Async: true,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return m.WriterData.(int) }),
	}
	failed := make(chan error)
	c := &kafka.Client{Addr: kafka.TCP(*broker)}
	m, err := c.Metadata(context.Background(), &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return err
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{*broker}, Topic: t.Name, Partition: p.ID, MinBytes: 1, MaxBytes: 10 << 20, MaxWait: time.Second})
			go func() { failed <- answer(r, w) }()
		}
	}
	return <-failed
}

// answer answers the requests of one partition.
func answer(r *kafka.Reader, w *kafka.Writer) error {
	ctx := context.Background()
	for {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return err
		}
		reply := kafka.Message{Value: m.Value}
		for _, h := range m.Headers {
			switch h.Key {
			case correlationID:
				reply.Headers = []kafka.Header{h}
			case replyTopic:
				reply.Topic = string(h.Value)
			case replyPartition:
				reply.WriterData = int(binary.BigEndian.Uint32(h.Value))
			}
		}
		if err := w.WriteMessages(ctx, reply); err != nil {
			return err
		}
	}
}
