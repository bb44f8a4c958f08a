// Command worker answers the orders of the hello example. It is what any
// worker is, a Kafka client with a consumer group: it reads a record, does the
// work, produces the answer to the topic and partition that the record names,
// and only then commits.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"mime"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// The gateway holds the other end of standard input for as long as it lives.
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := work(ctx); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// work answers orders until ctx ends.
func work(ctx context.Context) error {
	brokers := strings.Split(os.Getenv("OSMOSIS_KAFKA"), ",")
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: os.Getenv("OSMOSIS_TOPIC"), GroupID: os.Getenv("OSMOSIS_GROUP"),
		StartOffset: kafka.FirstOffset, MaxWait: time.Second,
		WatchPartitionChanges: true, // the topic may be made after this worker has joined
	})
	defer reader.Close()
	client := &kafka.Client{Addr: kafka.TCP(brokers...)}
	for {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		request, err := record.ParseRequest(record.Record{Key: message.Key, Value: message.Value, Headers: message.Headers})
		if err != nil {
			log.Printf("passing over offset %d of partition %d: %v", message.Offset, message.Partition, err)
		} else if err := reply(ctx, client, request, answer(request)); err != nil {
			return err
		}
		if err := reader.CommitMessages(ctx, message); err != nil {
			return fmt.Errorf("commit an order: %w", err)
		}
	}
}

// reply produces the answer where the request wants it.
func reply(ctx context.Context, client *kafka.Client, request record.Request, answer record.Reply) error {
	rec := answer.Record()
	response, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: request.ReplyTopic, Partition: int(request.ReplyPartition), RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}),
	})
	if err == nil {
		err = response.Error
	}
	if err != nil {
		return fmt.Errorf("produce the answer: %w", err)
	}
	return nil
}

// order is what the page sends, as JSON or as a form.
type order struct {
	Item string `json:"item"`
}

// answer does the work.
func answer(request record.Request) record.Reply {
	o, err := parse(request)
	if err != nil {
		return problem(request, err.Error())
	}
	// A browser without JavaScript asks for a page.
	if strings.Contains(request.Header.Get("Accept"), "text/html") {
		page := fmt.Sprintf("<!doctype html><title>Order</title><link rel=icon href=/icon.svg><h1>One %s, coming up</h1><p><a href=/>Another one</a>", html.EscapeString(o.Item))
		return request.Reply(http.StatusOK, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, []byte(page))
	}
	body, err := json.Marshal(map[string]string{"order": o.Item, "message": "One " + o.Item + ", coming up", "worker": os.Getenv("OSMOSIS_WORKER")})
	if err != nil {
		return problem(request, err.Error())
	}
	return request.Reply(http.StatusOK, http.Header{"Content-Type": {"application/json"}}, body)
}

// problem answers what cannot be understood. The gateway's client sees it as
// the response to its request.
func problem(request record.Request, detail string) record.Reply {
	body, _ := json.Marshal(map[string]any{"status": http.StatusBadRequest, "detail": detail})
	return request.Reply(http.StatusBadRequest, http.Header{"Content-Type": {"application/problem+json"}}, body)
}

// parse reads an order.
func parse(request record.Request) (order, error) {
	var o order
	switch mediaType, _, _ := mime.ParseMediaType(request.Header.Get("Content-Type")); mediaType {
	case "application/json":
		if err := json.Unmarshal(request.Body, &o); err != nil {
			return o, fmt.Errorf("read the order: %w", err)
		}
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(request.Body))
		if err != nil {
			return o, fmt.Errorf("read the order: %w", err)
		}
		o.Item = form.Get("item")
	default:
		return o, fmt.Errorf("an order is application/json or a form, not %q", mediaType)
	}
	if o.Item == "" {
		return o, errors.New("an order names an item")
	}
	return o, nil
}
