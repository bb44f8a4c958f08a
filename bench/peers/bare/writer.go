package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

// writer produces with kafka-go's Writer.
type writer struct{ w *kafka.Writer }

// newWriter makes a Writer that waits 1 ms for a batch to fill; its default, a
// second, would be the latency of every request.
func newWriter() *writer {
	return &writer{w: &kafka.Writer{
		Addr: kafka.TCP(*broker), Topic: *topic, Balancer: kafka.Murmur2Balancer{},
		RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond,
	}}
}

func (w *writer) produce(ctx context.Context, m message) error {
	out := kafka.Message{Key: m.key, Value: m.value}
	for _, h := range m.headers {
		out.Headers = append(out.Headers, kafka.Header{Key: h.name, Value: h.value})
	}
	return w.w.WriteMessages(ctx, out)
}

// follow reads the reply topic with the client that the flag names.
func follow(client string, w *waiting) error {
	if client == "franz-go" {
		return followFranz(w)
	}
	for partition := range replyPartitions {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{*broker}, Topic: *replies, Partition: partition, MinBytes: 1, MaxBytes: 10 << 20, MaxWait: time.Second})
		go read(r, w)
	}
	return nil
}

func read(r *kafka.Reader, w *waiting) {
	for {
		m, err := r.ReadMessage(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, "read replies:", err)
			return
		}
		found := reply{body: m.Value}
		for _, h := range m.Headers {
			switch h.Key {
			case correlationID:
				found.id = string(h.Value)
			case more:
				found.more = string(h.Value) == "true"
			}
		}
		w.deliver(found)
	}
}
