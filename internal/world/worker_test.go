package world

import (
	"context"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// worker is what answers requests where no gateway does.
type worker int

const (
	nobody worker = iota
	// plain answers each request, some of them twice, as one does that has died
	// before it committed.
	plain
	// exactly answers in transactions, some of which it aborts.
	exactly
)

// untrue is the body of answers that count for nothing.
const untrue = "of an aborted transaction"

// work answers the requests on the topic of jobs, until the world ends.
func (w *world) work() {
	random := rand.New(rand.NewPCG(w.plan.seed, 3))
	client, err := kgo.NewClient(kgo.SeedBrokers(w.addresses...), kgo.Dialer(w.network.DialContext),
		kgo.ConsumeTopics(jobs), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.wrong("worker: %v", err)
		return
	}
	defer client.Close()
	var producer *kgo.Client
	defer func() {
		if producer != nil {
			producer.Close()
		}
	}()
	for {
		fetched := client.PollFetches(w.ctx)
		if w.ctx.Err() != nil {
			return
		}
		for _, r := range fetched.Records() {
			for w.ctx.Err() == nil {
				if producer == nil {
					if producer, err = w.workersProducer(); err != nil {
						w.wrong("worker: %v", err)
						return
					}
				}
				if w.job(random, producer, r) {
					break
				}
				producer.Close()
				producer = nil
				w.sleep(200 * time.Millisecond)
			}
		}
	}
}

func (w *world) workersProducer() (*kgo.Client, error) {
	options := []kgo.Opt{kgo.SeedBrokers(w.addresses...), kgo.Dialer(w.network.DialContext), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	if w.plan.worker == exactly {
		options = append(options, kgo.TransactionalID("worker"), kgo.TransactionTimeout(10*time.Second))
	}
	return kgo.NewClient(options...)
}

// job answers a request, and tells whether the broker has it.
func (w *world) job(random *rand.Rand, producer *kgo.Client, r *kgo.Record) bool {
	rec := record.Record{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, record.Header{Key: h.Key, Value: h.Value})
	}
	request, err := record.ParseRequest(rec)
	n, _ := strconv.Atoi(string(r.Value))
	if err != nil || n >= len(w.plan.works) {
		w.wrong("worker: a request that nobody sent: %q: %v", r.Value, err)
		return true
	}
	w.sleep(min(w.plan.works[n].script.work, time.Second))
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	put := func(body string) bool {
		reply := request.Reply(200, nil, []byte(body)).Record()
		k := &kgo.Record{Topic: request.ReplyTopic, Partition: request.ReplyPartition, Key: reply.Key, Value: reply.Value}
		for _, h := range reply.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		return producer.ProduceSync(ctx, k).FirstErr() == nil
	}
	answer := whole(n, 1, 1)
	if w.plan.worker == plain {
		return put(answer) && (random.IntN(5) > 0 || put(answer))
	}
	if random.IntN(2) == 0 {
		if producer.BeginTransaction() != nil || !put(untrue) {
			return false
		}
		w.sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		if producer.EndTransaction(ctx, kgo.TryAbort) != nil {
			return false
		}
	}
	if producer.BeginTransaction() != nil || !put(answer) {
		return false
	}
	w.sleep(time.Duration(random.IntN(300)) * time.Millisecond)
	return producer.EndTransaction(ctx, kgo.TryCommit) == nil
}
