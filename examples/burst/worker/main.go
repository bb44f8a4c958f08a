// Command worker does the jobs of the burst example, one at a time. The gateway
// starts as many of it as it takes, and stops them again.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func main() {
	log.SetFlags(0)
	stopping, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		// The gateway holds the other end of standard input for as long as it lives.
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := work(stopping); err != nil {
		log.Fatal(err)
	}
}

// patience is how long a partition that goes to another worker waits for the job
// in hand.
const patience = 5 * time.Second

// work does jobs until stopping is done. The job in hand is finished: only the
// wait for the next one is cut short.
func work(stopping context.Context) error {
	inHand := make(chan struct{}, 1) // full while a job is
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("OSMOSIS_KAFKA"), ",")...),
		kgo.ConsumeTopics(os.Getenv("OSMOSIS_TOPIC")), kgo.ConsumerGroup(os.Getenv("OSMOSIS_GROUP")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what came before the first worker is work too
		kgo.DisableAutoCommit(),
		// Workers come and go here all the time. Partitions that stay where they
		// are go on meanwhile, and others wait for the job in hand: it would be
		// done twice. One that takes long does not hold up everyone else.
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.OnPartitionsRevoked(func(context.Context, *kgo.Client, map[string][]int32) {
			select {
			case inHand <- struct{}{}:
				<-inHand
			case <-time.After(patience):
			}
		}),
		// How soon a worker hears of a change, and how soon it reads from
		// partitions that are new to it: otherwise 3 and 5 seconds.
		kgo.HeartbeatInterval(500*time.Millisecond), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.SessionTimeout(10*time.Second), // how long the partitions of a killed worker wait
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
	)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close() // leaves the group, so that others take over at once

	for {
		fetches := client.PollRecords(stopping, 1)
		if stopping.Err() != nil {
			return nil
		}
		for _, r := range fetches.Records() {
			inHand <- struct{}{}
			err := answer(context.WithoutCancel(stopping), client, r)
			<-inHand
			if err != nil {
				return err // the gateway starts it again
			}
		}
	}
}

// answer does the job of one record, produces the reply where the record says,
// and commits only then.
func answer(ctx context.Context, client *kgo.Client, r *kgo.Record) error {
	in := record.Record{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		in.Headers = append(in.Headers, record.Header{Key: h.Key, Value: h.Value})
	}
	request, err := record.ParseRequest(in)
	if err != nil {
		log.Printf("passing over offset %d of partition %d: %v", r.Offset, r.Partition, err)
	} else {
		reply := do(request, time.Since(r.Timestamp)).Record()
		out := &kgo.Record{Topic: request.ReplyTopic, Partition: request.ReplyPartition, Value: reply.Value}
		for _, h := range reply.Headers {
			out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		if err := client.ProduceSync(ctx, out).FirstErr(); err != nil {
			return fmt.Errorf("produce the reply: %w", err)
		}
	}
	if err := client.CommitRecords(ctx, r); err != nil {
		// The group has moved on without this worker, which comes back to it by
		// itself: say, Kafka was away. The job is done again.
		log.Printf("not committed, offset %d of partition %d: %v", r.Offset, r.Partition, err)
	}
	return nil
}

// job is a request's body: which it is, and how long its work takes.
type job struct {
	N            int     `json:"n"`
	Milliseconds float64 `json:"ms"`
}

// longest is as long as a job may take.
const longest = time.Hour

// do does the work, which is to take time, after it has waited.
func do(request record.Request, waited time.Duration) record.Reply {
	var j job
	err := json.Unmarshal(request.Body, &j)
	takes := time.Duration(j.Milliseconds * float64(time.Millisecond))
	if err == nil && (takes < 0 || takes > longest) {
		err = errors.New("a job takes up to an hour")
	}
	if err != nil {
		body, _ := json.Marshal(map[string]any{"status": http.StatusBadRequest, "detail": err.Error()})
		return request.Reply(http.StatusBadRequest, http.Header{"Content-Type": {"application/problem+json"}}, body)
	}
	time.Sleep(takes)
	body, _ := json.Marshal(map[string]any{"n": j.N, "waited_ms": waited.Milliseconds(), "worker": os.Getenv("OSMOSIS_WORKER")})
	return request.Reply(http.StatusOK, http.Header{"Content-Type": {"application/json"}}, body)
}
