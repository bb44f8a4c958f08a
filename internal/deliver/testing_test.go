package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

const (
	testTopic   = "orders"
	testReplies = "replies"
	testDead    = "orders.dlq"
	testControl = "control"
	testGroup   = "orders"
)

// rig is a cluster in memory with topics for requests, replies and dead letters,
// each of one partition unless a test says otherwise. It has to be made inside a
// synctest bubble, so that time is virtual.
type rig struct {
	t       *testing.T
	network kfake.VirtualNetwork
	cluster *kfake.Cluster
	// client is the tests' own, which no fault befalls.
	client *broker.Client
	log    *zap.Logger
}

func virtually(t *testing.T, test func(t *testing.T, r *rig), more ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))}
		cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(r.network.Listen),
			kfake.SeedTopics(1, testTopic, testReplies, testDead, testControl), kfake.SeedTopics(12, "spread")}, more...)...)
		if err != nil {
			t.Fatal(err)
		}
		r.cluster = cluster
		t.Cleanup(cluster.Close)
		r.client = r.connect()
		test(t, r)
	})
}

func (r *rig) connect() *broker.Client {
	c := broker.New(broker.Config{Addresses: r.cluster.ListenAddrs(), Dial: r.network.DialContext})
	r.t.Cleanup(c.Close)
	return c
}

// Produce makes the rig a Producer.
func (r *rig) Produce(ctx context.Context, topic string, partition int32, rec record.Record) error {
	_, err := r.put(ctx, topic, partition, rec)
	return err
}

func (r *rig) put(ctx context.Context, topic string, partition int32, recs ...record.Record) (int64, error) {
	batch := make([]kafka.Record, len(recs))
	for i, rec := range recs {
		batch[i] = kafka.Record{Key: kafka.NewBytes(rec.Key), Value: kafka.NewBytes(rec.Value), Headers: rec.Headers}
	}
	answer, err := r.client.API().Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: int(max(partition, 0)), RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(batch...),
	})
	if err == nil {
		err = answer.Error
	}
	if err != nil {
		return 0, err
	}
	return answer.BaseOffset, nil
}

// options are those of a test, with the parts that it does not care about.
func options(h handlerFunc, change ...func(*Options)) Options {
	o := Options{
		Handler: h, Attempts: 3, BackoffMin: time.Second, BackoffMax: 10 * time.Second,
		Timeout: time.Minute, Concurrency: 10, DeadLetter: testDead, MaxResponse: 8 << 20,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

type handlerFunc func(w http.ResponseWriter, r *http.Request) error

func (f handlerFunc) ServeHTTP(w http.ResponseWriter, r *http.Request) error { return f(w, r) }

// deliver begins to deliver, until the test ends.
func (r *rig) deliver(o Options, change ...func(*Config)) *Delivery {
	c := Config{Broker: r.connect(), Producer: r, Topic: testTopic, Group: testGroup, Control: testControl, Logger: r.log}
	for _, f := range change {
		f(&c)
	}
	d := New(c, o)
	r.t.Cleanup(sync.OnceFunc(d.Close))
	return d
}

// request makes the record of a request, as a gateway does.
func (r *rig) request(id, key, body string) record.Record {
	r.t.Helper()
	h, err := http.NewRequest(http.MethodPost, "https://example.com:8443/orders?rush=1", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	h.RequestURI, h.Host = "/orders?rush=1", "example.com:8443"
	h.Header.Set("Content-Type", "text/plain")
	h.Header.Set("Accept-Encoding", "br")
	rec, err := record.FromHTTP(h, []byte(body), record.Meta{
		StreamID: id, Source: "https://example.com:8443", Type: "osmosis.request", Time: time.Now(),
		Scheme: "https", ClientIP: "203.0.113.7", ReplyTopic: testReplies, Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if key != "" {
		rec.Key = []byte(key)
	}
	return rec
}

// send puts requests on the topic, numbered from 0 by id and body.
func (r *rig) send(n int, key func(int) string) {
	r.t.Helper()
	recs := make([]record.Record, n)
	for i := range recs {
		recs[i] = r.request("s"+strconv.Itoa(i), key(i), strconv.Itoa(i))
	}
	if _, err := r.put(r.t.Context(), testTopic, 0, recs...); err != nil {
		r.t.Fatal(err)
	}
}

func keyless(int) string { return "" }

// read gives all records of a topic's first partition.
func (r *rig) read(topic string) []broker.Record {
	r.t.Helper()
	is, err := r.client.Topic(r.t.Context(), topic)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []broker.Record
	for next := int64(0); ; {
		got, err := r.client.Fetch(r.t.Context(), broker.FetchRequest{
			Leader: is.Leaders[0], MaxBytes: 64 << 20,
			From: []broker.FetchFrom{{Topic: topic, ID: is.ID, Offset: next}},
		})
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, got[0].Records...)
		if next = got[0].Next; next >= got[0].HighWatermark {
			return all
		}
	}
}

// replies gives what is on the reply topic, in words, by stream.
func (r *rig) replies() map[string][]string {
	r.t.Helper()
	told := make(map[string][]string)
	for _, rec := range r.read(testReplies) {
		reply, err := record.ParseReply(rec.Record)
		if err != nil {
			r.t.Fatal(err)
		}
		text := fmt.Sprintf("%d %s", reply.Status, reply.Body)
		switch {
		case reply.State != "" && reply.Terminal():
			end := reply.End()
			text = fmt.Sprintf("%s after %d: %d %s", end.Status, end.Attempts, end.Code, end.Reason)
		case reply.State != "":
			p := reply.Progress()
			text = fmt.Sprintf("%s %d: %d %s", p.Status, p.Attempt, p.Code, p.Reason)
		case reply.Event != "":
			text = fmt.Sprintf("part %d %s: %s", reply.Status, reply.Event, reply.Body)
		case reply.More:
			text = "part " + text
		}
		told[reply.StreamID] = append(told[reply.StreamID], text)
	}
	return told
}

// want waits until a stream was told exactly these things, in order.
func (r *rig) want(id string, things ...string) {
	r.t.Helper()
	var got []string
	r.eventually(func() bool {
		got = r.replies()[id]
		return slices.Equal(got, things)
	}, func() string { return fmt.Sprintf("stream %s was told %q, want %q", id, got, things) })
}

// eventually looks until something holds, for a minute of virtual time.
func (r *rig) eventually(holds func() bool, otherwise func() string) {
	r.t.Helper()
	for range 600 {
		if holds() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatal(otherwise())
}

// committed gives the group's progress in the first partition.
func (r *rig) committed() progress {
	r.t.Helper()
	answer, err := r.client.API().OffsetFetch(r.t.Context(), &kafka.OffsetFetchRequest{GroupID: testGroup, Topics: map[string][]int{testTopic: {0}}})
	if err == nil && errors.Is(answer.Error, kafka.GroupIdNotFound) {
		return progress{base: -1} // nobody has joined yet
	}
	if err != nil || answer.Error != nil {
		r.t.Fatal(errors.Join(err, answer.Error))
	}
	at := answer.Topics[testTopic][0]
	if at.CommittedOffset < 0 {
		return progress{base: -1}
	}
	p, err := parseProgress(at.CommittedOffset, at.Metadata)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

// done waits until the group has committed that everything up to an offset is done.
func (r *rig) done(offset int64) {
	r.t.Helper()
	var p progress
	r.eventually(func() bool { p = r.committed(); return p.base == offset && len(p.done) == 0 && len(p.tries) == 0 },
		func() string { return fmt.Sprintf("committed %+v, want %d", p, offset) })
}

// echo answers with what it gets.
func echo(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// commit commits for the group, which has to be empty, as a tool does.
func (r *rig) commit(offset int64, metadata string) {
	r.t.Helper()
	answer, err := r.client.API().OffsetCommit(r.t.Context(), &kafka.OffsetCommitRequest{
		GroupID: testGroup, GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{testTopic: {{Offset: offset, Metadata: metadata}}},
	})
	if err == nil {
		err = answer.Topics[testTopic][0].Error
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// pass lets virtual time pass.
func pass(d time.Duration) { time.Sleep(d) }
