//go:build e2e

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// accepted is the body of a 202.
type accepted struct {
	ID, Status, Stream string
}

// post sends an order and expects 202.
func post(t testing.TB, g *gateway, path, body string) accepted {
	t.Helper()
	response, err := http.Post(g.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("POST %s: %s: %s", path, response.Status, text)
	}
	var a accepted
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if location := response.Header.Get("Location"); !strings.HasSuffix(a.Stream, location) || location == "" {
		t.Fatalf("Location %q does not match the stream %q", location, a.Stream)
	}
	return a
}

// get asks for one form of a stream and gives status, headers and body.
func get(t testing.TB, url string, headers ...string) (int, http.Header, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

// event is one server-sent event as a browser dispatches it.
type event struct {
	Type, Data, ID string
}

// sse reads a text/event-stream by the rules of the HTML standard, until stop
// says so or the stream ends.
func sse(ctx context.Context, url, lastID string, stop func(event) bool) (status int, events []event, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil, nil
	}
	err = readEvents(response.Body, lastID, func(e event) bool {
		events = append(events, e)
		return stop(e)
	})
	return response.StatusCode, events, err
}

// readEvents reads a text/event-stream until stop says so or it ends. What was
// not complete when the connection broke is dropped.
func readEvents(stream io.Reader, lastID string, stop func(event) bool) error {
	var now event
	var data []string
	id := lastID
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			now.Data, now.ID = strings.Join(data, "\n"), id
			if now.Type == "" {
				now.Type = "message"
			}
			if stop(now) {
				return nil
			}
			now, data = event{}, nil
		case line == "":
			now = event{}
		case name == "data":
			data = append(data, value)
		case name == "event":
			now.Type = value
		case name == "id":
			id = value
		}
	}
}

// never reads a stream to its end.
func never(event) bool { return false }

// worker echoes the requests of a topic; parts is how many replies each gets.
func worker(t testing.TB, brokers []string, topic string, parts int) {
	t.Helper()
	work(t, brokers, topic, parts, func(_ context.Context, request record.Request, part int) record.Reply {
		return request.Reply(http.StatusOK, http.Header{"Content-Type": {"application/json"}}, fmt.Appendf(nil, `{"echo":%q,"part":%d}`, request.Body, part))
	})
}

// work answers the requests of a topic, like any Kafka client would, until the
// test ends. It begins at the first record. Each request gets as many replies as
// parts says, reply makes them.
func work(t testing.TB, brokers []string, topic string, parts int, reply func(ctx context.Context, request record.Request, part int) record.Reply) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	done.Go(func() {
		if err := answer(ctx, brokers, topic, parts, reply); err != nil && ctx.Err() == nil {
			t.Errorf("the worker has ended: %v", err)
		}
	})
}

func answer(ctx context.Context, brokers []string, topic string, parts int, replyTo func(context.Context, record.Request, int) record.Reply) error {
	// The default transport would give a worker another one's connections,
	// those to a broker that was killed too.
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	// The gateway makes the topic while workers start. kafka-go never notices one
	// that is made between its joining the group, which gives it no partitions
	// then, and its first look at how many there are.
	if err := made(ctx, brokers, topic); err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, Topic: topic, GroupID: topic + "-workers", StartOffset: kafka.FirstOffset,
		MaxWait: time.Second, // Close waits as long
	})
	defer reader.Close()
	for {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			return err
		}
		request, err := record.ParseRequest(record.Record{Key: m.Key, Value: m.Value, Headers: m.Headers})
		if err != nil {
			return err
		}
		for part := range parts {
			reply := replyTo(ctx, request, part)
			reply.More = part < parts-1
			rec := reply.Record()
			response, err := client.Produce(ctx, &kafka.ProduceRequest{
				Topic: request.ReplyTopic, Partition: int(request.ReplyPartition), RequiredAcks: kafka.RequireAll,
				Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}),
			})
			if err == nil {
				err = response.Error
			}
			if err != nil {
				return err
			}
		}
		if err := reader.CommitMessages(ctx, m); err != nil {
			return err
		}
	}
}

// made waits until a topic is there.
func made(ctx context.Context, brokers []string, topic string) error {
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err == nil && len(answer.Topics) == 1 && answer.Topics[0].Error == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
