//go:build e2e

package deliver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// patience bounds every wait of the tests on a real Kafka. It is long because
// it is no promise: machines that build and test at once are slow.
const patience = 3 * time.Minute

// field is a real Kafka with topics for requests, replies and dead letters, and
// an upstream; processes deliver.
type field struct {
	t        *testing.T
	order    order // of the next process
	client   *kgo.Client
	admin    *kadm.Client
	upstream *upstream
	members  []*member // that run
	all      []*member // that ever ran
	ids      []string  // stream ids, by number
	keys     []string  // by number
}

func newField(t *testing.T, partitions int32, decide decision, change func(*order)) *field {
	t.Helper()
	return newFieldOn(t, kafkatest.Start(t, kafkatest.Options{}), partitions, decide, change)
}

func newFieldOn(t *testing.T, cluster *kafkatest.Cluster, partitions int32, decide decision, change func(*order)) *field {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...), kgo.MetadataMinAge(100*time.Millisecond), kgo.UnknownTopicRetries(50))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	f := &field{t: t, client: client, admin: kadm.NewClient(client), upstream: newUpstream(t, decide)}
	for topic, n := range map[string]int32{testTopic: partitions, testReplies: partitions, testDead: partitions, testControl: 1} {
		if _, err := f.admin.CreateTopic(t.Context(), n, int16(min(3, len(cluster.Addresses()))), nil, topic); err != nil { //nolint:gosec // a few
			t.Fatal(err)
		}
	}
	f.order = order{
		Brokers: cluster.Addresses(), Topic: testTopic, Replies: testReplies, Dead: testDead, Control: testControl, Upstream: f.upstream.URL,
		Attempts: 5, Concurrency: 32, Least: 100 * time.Millisecond, Most: time.Second, Timeout: time.Second, Drain: 5 * time.Second,
	}
	if change != nil {
		change(&f.order)
	}
	return f
}

// add starts a process.
func (f *field) add() *member {
	f.t.Helper()
	o := f.order
	o.Name = "member " + strconv.Itoa(len(f.all)+1)
	m := startMember(f.t, o)
	f.members, f.all = append(f.members, m), append(f.all, m)
	return m
}

// remove takes out the process that has run longest.
func (f *field) remove() *member {
	m := f.members[0]
	f.members = f.members[1:]
	return m
}

// send puts requests on the topic, numbered on, and waits until they are there.
func (f *field) send(n int, key func(int) string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	records := make([]*kgo.Record, n)
	for i := range records {
		number := len(f.ids)
		id := record.NewID(int32(number%4), 4)
		f.ids, f.keys = append(f.ids, id), append(f.keys, key(number))
		rec, err := record.FromHTTP(&http.Request{
			Method: http.MethodPost, Host: "example.com", URL: &url.URL{Path: "/orders", RawQuery: "n=" + strconv.Itoa(number)},
		}, []byte("order "+strconv.Itoa(number)), record.Meta{
			StreamID: id, Source: "https://example.com", Type: "osmosis.request", Time: time.Now(), Scheme: "https", ClientIP: "203.0.113.7",
			ReplyTopic: testReplies, Expires: time.Now().Add(time.Hour),
		})
		if err != nil {
			f.t.Fatal(err)
		}
		records[i] = &kgo.Record{Topic: testTopic, Value: rec.Value}
		if f.keys[number] != "" {
			records[i].Key = []byte(f.keys[number])
		}
		for _, h := range rec.Headers {
			records[i].Headers = append(records[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
	}
	if err := f.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

// left gives how many records the group has not committed as done.
func (f *field) left(ctx context.Context) (int64, error) {
	ends, err := f.admin.ListEndOffsets(ctx, testTopic)
	if err != nil {
		return 0, err
	}
	committed, err := f.admin.FetchOffsets(ctx, testTopic)
	if err != nil {
		return 0, err
	}
	var left int64
	ends.Each(func(end kadm.ListedOffset) {
		at, _ := committed.Lookup(testTopic, end.Partition)
		left += end.Offset - max(at.At, 0)
	})
	return left, nil
}

// until waits until at most so many records are left.
func (f *field) until(most int64) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		left, err := f.left(ctx)
		if err == nil && left <= most {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.t.Fatalf("%d records are left after %s: %v", left, patience, err)
		}
	}
}

// endAll tells all processes to end, and waits for them.
func (f *field) endAll() {
	f.t.Helper()
	for _, m := range f.members {
		m.end()
	}
	f.members = nil
}

// read gives all records of a topic, by partition and offset.
func (f *field) read(topic string) []record.Record {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	ends, err := f.admin.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	unread := make(map[int32]int64)
	from := make(map[int32]kgo.Offset)
	ends.Each(func(end kadm.ListedOffset) {
		if end.Offset > 0 {
			unread[end.Partition], from[end.Partition] = end.Offset, kgo.NewOffset().AtStart()
		}
	})
	if len(unread) == 0 {
		return nil
	}
	f.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	defer f.client.PurgeTopicsFromConsuming(topic)
	var all []record.Record
	for len(unread) > 0 {
		fetches := f.client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			f.t.Fatalf("read topic %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset == unread[r.Partition]-1 {
				delete(unread, r.Partition)
			}
			rec := record.Record{Key: r.Key, Value: r.Value}
			for _, h := range r.Headers {
				rec.Headers = append(rec.Headers, kafka.Header{Key: h.Key, Value: h.Value})
			}
			all = append(all, rec)
		})
	}
	return all
}

// evictions counts what the processes had to leave without a commit.
func (f *field) evictions() int {
	n := 0
	for _, m := range f.all {
		n += m.evictions()
	}
	return n
}

// oneIn has every so manieth record without a key, and the others share keys.
func oneIn(keyless, keys int) func(int) string {
	return func(n int) string {
		if n%keyless == 0 {
			return ""
		}
		return fmt.Sprintf("key %d", n%keys)
	}
}
