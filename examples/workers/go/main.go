// Command go answers orders with kafka-go. It reads an order, answers it twice,
// first that it is in the making, then with the result, and commits when Kafka
// has both. A worker that dies in between does the order again.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func main() {
	stopping, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := work(stopping); err != nil {
		log.Fatal(err)
	}
}

// work answers orders until stopping is done. The order in hand is finished: only
// the wait for the next one is cut short.
func work(stopping context.Context) error {
	brokers := strings.Split(cmp.Or(os.Getenv("OSMOSIS_KAFKA"), "localhost:9092"), ",")
	topic := cmp.Or(os.Getenv("OSMOSIS_TOPIC"), "orders")
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topic, GroupID: cmp.Or(os.Getenv("OSMOSIS_GROUP"), topic),
		StartOffset:    kafka.FirstOffset, // what came before the first worker is work too
		SessionTimeout: 10 * time.Second,  // how long the partitions of a killed worker wait
		MaxWait:        time.Second,
		// Without this a worker that joins before the topic is there gets no partitions.
		WatchPartitionChanges: true,
	})
	defer reader.Close() // leaves the group, so that others take over at once
	client := &kafka.Client{Addr: kafka.TCP(brokers...)}

	for {
		message, err := reader.FetchMessage(stopping)
		if stopping.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		ctx := context.WithoutCancel(stopping)
		request, err := record.ParseRequest(record.Record{Key: message.Key, Value: message.Value, Headers: message.Headers})
		if err != nil {
			log.Printf("passing over offset %d of partition %d: %v", message.Offset, message.Partition, err)
		} else if err := answer(ctx, client, request); err != nil {
			return err // whoever started the worker starts it again
		}
		if err := reader.CommitMessages(ctx, message); err != nil {
			return fmt.Errorf("commit an order: %w", err)
		}
	}
}

// answer does the work of one order.
func answer(ctx context.Context, client *kafka.Client, request record.Request) error {
	var order struct {
		Item string `json:"item"`
	}
	if err := json.Unmarshal(request.Body, &order); err != nil || order.Item == "" {
		problem := map[string]any{"status": http.StatusBadRequest, "detail": "an order is JSON and names an item"}
		return send(ctx, client, request, response(request, http.StatusBadRequest, "application/problem+json", problem))
	}

	progress := response(request, http.StatusOK, "application/json", map[string]string{"message": "One " + order.Item + ", in the making"})
	progress.More = true
	if err := send(ctx, client, request, progress); err != nil {
		return err
	}
	result := map[string]string{"order": order.Item, "message": "One " + order.Item + ", coming up"}
	return send(ctx, client, request, response(request, http.StatusCreated, "application/json", result))
}

// response makes a reply as the client gets it: the status, the headers and the
// body of an HTTP response.
func response(request record.Request, status int, contentType string, value any) record.Reply {
	body, err := json.Marshal(value)
	if err != nil {
		panic(err) // maps of strings and numbers can be marshalled
	}
	return request.Reply(status, http.Header{"Content-Type": {contentType}}, body)
}

// send produces a reply to the topic and partition that the request names, and
// returns when Kafka has it.
func send(ctx context.Context, client *kafka.Client, request record.Request, reply record.Reply) error {
	rec := reply.Record()
	produced, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: request.ReplyTopic, Partition: int(request.ReplyPartition), RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}),
	})
	if err == nil {
		err = produced.Error // what the broker said about the record
	}
	if err != nil {
		return fmt.Errorf("produce a reply: %w", err)
	}
	return nil
}
