//go:build e2e

package workers_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// replyTopic is the gateway's default.
const replyTopic = "osmosis.replies"

// tally counts the records on the reply topic by the stream that they belong to.
type tally struct {
	results  map[string]int  // last replies
	progress map[string]int  // those before
	places   map[string]bool // where all of them stand, as partition-offset
}

// readReplies reads the whole reply topic.
func readReplies(ctx context.Context, t testing.TB, brokers []string, isolation kgo.IsolationLevel) tally {
	t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(replyTopic), kgo.FetchIsolationLevel(isolation),
		// A transaction ends with a control record, so with them the end is
		// seen where aborted records are left out too.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, replyTopic)
	if err != nil {
		t.Fatal(err)
	}
	missing := make(map[int32]int64) // ends of the partitions that are not read yet
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			missing[o.Partition] = o.Offset
		}
	})
	found := tally{results: make(map[string]int), progress: make(map[string]int), places: make(map[string]bool)}
	for len(missing) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read the reply topic, with the ends %v to come: %v", missing, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := missing[r.Partition]; ok && r.Offset+1 >= end {
				delete(missing, r.Partition)
			}
			if r.Attrs.IsControl() {
				return
			}
			found.add(t, r)
		})
	}
	return found
}

// add counts one record.
func (f tally) add(t testing.TB, r *kgo.Record) {
	rec := record.Record{Value: r.Value}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, record.Header{Key: h.Key, Value: h.Value})
	}
	reply, err := record.ParseReply(rec)
	f.places[fmt.Sprintf("%d-%d", r.Partition, r.Offset)] = true
	switch {
	case err != nil:
		t.Errorf("partition %d, offset %d of the reply topic: %v", r.Partition, r.Offset, err)
	case reply.More:
		f.progress[reply.StreamID]++
	default:
		f.results[reply.StreamID]++
	}
}
