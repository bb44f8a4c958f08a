//go:build e2e

package main

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// script says when the parts of the answer to request n come, each counted from
// the one before; the last ends the request.
type script func(n int) []time.Duration

// atOnce is the script of a fast worker: one part of progress and the answer.
func atOnce(int) []time.Duration { return []time.Duration{0, 0} }

// crew answers all requests of "orders" by the script, each beside the others,
// until the test ends. It outlives its broker and, as any worker then does, may
// answer some requests again.
func crew(t testing.TB, brokers []string, script script) {
	t.Helper()
	const soon = 250 * time.Millisecond
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...),
		kgo.ConsumeTopics("orders"), kgo.ConsumerGroup("orders-workers"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(soon), kgo.MetadataMaxAge(2*time.Second), kgo.RetryBackoffFn(func(int) time.Duration { return soon }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var working sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		working.Wait()
		client.CloseAllowingRebalance()
	})
	working.Go(func() {
		for ctx.Err() == nil {
			// Errors here are the broker's absence, and the client goes on by itself.
			client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				request, err := record.ParseRequest(recordOf(r))
				if err != nil {
					t.Errorf("the crew got what is no request: %v", err)
					return
				}
				working.Go(func() { perform(ctx, t, client, request, script) })
			})
		}
	})
}

// perform answers one request.
func perform(ctx context.Context, t testing.TB, client *kgo.Client, request record.Request, script script) {
	n, err := numberOf(request.Path)
	if err != nil {
		t.Error(err)
		return
	}
	parts := script(n)
	for part, pause := range parts {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		reply := request.Reply(http.StatusOK, http.Header{"Content-Type": {"text/plain"}}, answerOf(n, part, request.Body))
		reply.More = part < len(parts)-1
		rec := reply.Record()
		out := &kgo.Record{Topic: request.ReplyTopic, Partition: request.ReplyPartition, Value: rec.Value}
		for _, h := range rec.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		for ctx.Err() == nil {
			err := client.ProduceSync(ctx, out).FirstErr()
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				t.Logf("the crew tries again to answer request %d: %v", n, err)
			}
		}
	}
}
