//go:build e2e

package embedded

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const partitions = 3

// A broker is killed again and again, at any moment, while it writes all that
// it writes: records and their segments, topics, producer ids, commits, and
// while its janitor deletes without a pause. What was acknowledged is there.
func TestKilledBrokerLosesNothing(t *testing.T) {
	const (
		rounds    = 30
		retention = 400 * time.Millisecond
	)
	directory := t.TempDir()
	ledger := &ledger{records: make(map[spot]told), topics: make(map[string]bool)}
	rng := rand.New(rand.NewPCG(4, 2))
	var leaving sync.WaitGroup
	for round := range rounds {
		c := startChild(t, directory, retention, -1)
		client, err := kgo.NewClient(kgo.SeedBrokers(c.address), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(0),
			kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MetadataMinAge(10*time.Millisecond), kgo.RetryTimeout(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		admin := kadm.NewClient(client)
		if round == 0 {
			if _, err := admin.CreateTopic(t.Context(), partitions, 1, nil, "orders"); err != nil {
				t.Fatal(err)
			}
		} else {
			ledger.check(t, admin, c.address, retention)
		}
		if t.Failed() {
			client.Close()
			t.Fatalf("in round %d", round)
		}

		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		var working sync.WaitGroup
		for p := range int32(partitions) {
			working.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					value := fmt.Sprintf("%d.%d.%d.%s", round, p, i, strings.Repeat("x", i%5*50_000))
					r := &kgo.Record{Topic: "orders", Partition: p, Value: []byte(value), Timestamp: time.Now()}
					if client.ProduceSync(ctx, r).FirstErr() == nil {
						ledger.record(spot{p, r.Offset}, told{value, r.Timestamp})
					}
				}
			})
		}
		working.Go(func() {
			for i := int64(1); ctx.Err() == nil; i++ {
				position := int64(round)<<32 + i
				offsets := make(kadm.Offsets)
				offsets.AddOffset("orders", 0, position, -1)
				if answers, err := admin.CommitOffsets(ctx, "workers", offsets); err == nil && answers.Error() == nil {
					ledger.commit(position)
				}
			}
		})
		working.Go(func() {
			for i := 0; ctx.Err() == nil && i < 3; i++ {
				name := fmt.Sprintf("made-%d-%d", round, i)
				if answer, err := admin.CreateTopic(ctx, 1, 1, nil, name); err == nil && answer.Err == nil {
					ledger.topic(name)
				}
			}
		})
		select {
		case <-time.After(time.Duration(rng.IntN(250)) * time.Millisecond):
		case <-t.Context().Done():
		}
		c.kill()
		stop()
		leaving.Go(func() { // takes a second, in which the next round begins
			client.Close() // what is not answered stays so
			working.Wait()
		})
	}
	leaving.Wait()
	c := startChild(t, directory, retention, -1)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ledger.check(t, kadm.NewClient(client), c.address, retention)
	t.Logf("%d kills, %d records acknowledged, %d of them read again and %d deleted by their age, %d commits, %d topics", rounds, ledger.all, ledger.checked, ledger.aged, ledger.commits, len(ledger.topics))
}

// spot is a place in the log, and told what was acknowledged there, with its time.
type spot struct {
	partition int32
	offset    int64
}

type told struct {
	value string
	at    time.Time
}

// ledger is what the broker has acknowledged.
type ledger struct {
	mu        sync.Mutex
	records   map[spot]told
	all       int
	ends      [partitions]int64
	committed int64
	commits   int
	topics    map[string]bool
	checked   int
	aged      int
}

func (l *ledger) record(s spot, what told) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[s] = what
	l.all++
	l.ends[s.partition] = max(l.ends[s.partition], s.offset+1)
}

func (l *ledger) commit(position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = position
	l.commits++
}

func (l *ledger) topic(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[name] = true
}

// check compares a broker with the ledger. Nobody writes meanwhile.
func (l *ledger) check(t *testing.T, admin *kadm.Client, address string, retention time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	topics, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name := range l.topics {
		if !topics.Has(name) {
			t.Errorf("topic %s is gone", name)
		}
	}
	if l.committed > 0 {
		committed, err := admin.FetchOffsets(t.Context(), "workers")
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := committed.Lookup("orders", 0); !ok || at.At < l.committed {
			t.Errorf("committed %d and found %d", l.committed, at.At)
		}
	}
	ends, err := admin.ListEndOffsets(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	for p := range l.ends {
		end, ok := ends.Lookup("orders", int32(p))
		if !ok || end.Offset < l.ends[p] {
			t.Fatalf("partition %d ended at %d and now at %d", p, l.ends[p], end.Offset)
		}
		l.ends[p] = end.Offset
	}
	for s, value := range values(t, address, l.ends) {
		if want, ok := l.records[s]; ok {
			if want.value != value {
				t.Errorf("%+v holds %.20q, acknowledged was %.20q", s, value, want.value)
			}
			delete(l.records, s)
			l.checked++
		}
	}
	for s, r := range l.records {
		age := time.Since(r.at) // the janitor was at work until now
		if s.offset == l.ends[s.partition]-1 || age < retention {
			t.Errorf("%+v of %v ago is gone: %.20q", s, age, r.value)
		}
	}
	l.aged += len(l.records)
	clear(l.records)
}

// values reads what the partitions hold up to their ends.
func values(t *testing.T, address string, ends [partitions]int64) map[spot]string {
	t.Helper()
	from, left := make(map[int32]kgo.Offset), 0
	for p, end := range ends {
		if end > 0 {
			from[int32(p)] = kgo.NewOffset().AtStart()
			left++
		}
	}
	found := make(map[spot]string)
	if left == 0 {
		return found
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"orders": from}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for left > 0 {
		fetches := client.PollFetches(within(t, 20*time.Second))
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			found[spot{r.Partition, r.Offset}] = string(r.Value)
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
		})
	}
	return found
}
