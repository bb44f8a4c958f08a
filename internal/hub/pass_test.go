package hub

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// elsewhere is a network on which one broker can be made to refuse or to fall silent.
type elsewhere struct {
	*rig
	suffix  string // of the broker's address
	refuses atomic.Bool
	silent  atomic.Bool

	mu    sync.Mutex
	conns []net.Conn
}

func (e *elsewhere) dial(ctx context.Context, network, address string) (net.Conn, error) {
	theirs := strings.HasSuffix(address, e.suffix)
	if theirs && e.refuses.Load() {
		return nil, errors.New("connection refused")
	}
	conn, err := e.network.DialContext(ctx, network, address)
	if err == nil && theirs {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.conns = append(e.conns, conn)
	}
	return conn, err
}

// refuse closes the broker's connections and lets nobody dial it again.
func (e *elsewhere) refuse() {
	e.refuses.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, conn := range e.conns {
		conn.Close()
	}
}

// Streams behind the window, in more partitions than there are places for
// passes, cannot be read because the broker of these partitions is gone or hangs.
// Those of the other broker do not notice.
func TestBrokerThatFailsHoldsUpItsOwn(t *testing.T) {
	const partitions = 3*maxPasses + 1 // all but 0 at the second broker
	for _, silent := range []bool{false, true} {
		bubble(t, fmt.Sprintf("silent %v", silent), func(t *testing.T) {
			r := newRig(t, partitions, kfake.NumBrokers(2), kfake.Ports(9092, 9093))
			e := &elsewhere{rig: r, suffix: ":9093"}
			client := broker.New(broker.Config{Addresses: r.ListenAddrs()[:1], Dial: e.dial})
			t.Cleanup(client.Close)
			h := New(Config{Broker: client, Topic: gatewayTopic, WindowBytes: 1})
			t.Cleanup(h.Close)
			r.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
				r.KeepControl()
				return nil, nil, e.silent.Load() && r.CurrentNode() == 1 // taken, and never answered
			})
			streams := make([]Stream, partitions)
			for p := range int32(partitions) {
				if err := r.MoveTopicPartition(gatewayTopic, p, min(p, 1)); err != nil {
					t.Fatal(err)
				}
				id := fmt.Sprint(p)
				streams[p] = r.stream(id)
				streams[p].Partition = p
			}
			time.Sleep(2 * metadataTTL) // the test's producer must hear of it
			for p := range int32(partitions) {
				r.put(p, part(fmt.Sprint(p), "one"), part(fmt.Sprint(p), "two"))
				warm := h.Follow(streams[p], nil) // so that the ends are known
				expect(t, warm, fmt.Sprintf("reply one @%d/0", p))
				warm.Close()
			}
			if e.silent.Store(silent); !silent {
				e.refuse()
			}
			for _, s := range streams[1:] {
				sub := h.Follow(s, nil)
				t.Cleanup(sub.Close)
				go next(sub)
			}
			time.Sleep(2 * time.Second)
			sub := h.Follow(streams[0], nil)
			t.Cleanup(sub.Close)
			began := time.Now()
			expect(t, sub, "reply one @0/0", "reply two @0/1")
			if d := time.Since(began); d > 100*time.Millisecond {
				t.Errorf("the other broker's stream waited %v", d)
			}

			// When another broker takes over it is not waited for the one that hangs.
			for p := int32(1); p < partitions; p++ {
				if err := r.MoveTopicPartition(gatewayTopic, p, 0); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * topicRefresh)
			began = time.Now()
			for _, s := range streams[1:] {
				again := h.Follow(s, nil)
				t.Cleanup(again.Close)
				expect(t, again, fmt.Sprintf("reply one @%d/0", s.Partition))
			}
			if d := time.Since(began); d > time.Second {
				t.Errorf("the streams that went over to the other broker waited %v", d)
			}
		})
	}
}

// A transaction that is open holds up neither other partitions nor those who
// want what lies before it, costs no polling, and what lies behind it comes when
// it is decided.
func TestScanAtAnOpenTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 2*maxPasses + 1 // transactions in all but 0
		r := newRig(t, partitions)
		var finish []func()
		for p := range int32(partitions) {
			r.put(p, part("before", "one"))
			if p > 0 {
				finish = append(finish, r.transact(p))
			}
			r.put(p, part("behind", "two"))
		}
		stream := func(id string, partition int32) Stream {
			s := r.stream(id)
			s.Partition = partition
			return s
		}
		scans := r.countScans()
		var held []*Subscription
		for p := int32(1); p < partitions; p++ {
			sub := r.follow(stream("behind", p), nil)
			expect(t, sub, "caught up") // it waits for no transaction
			held = append(held, sub)
		}
		before := scans.Load()
		expect(t, held[0], "silence")
		if n := scans.Load() - before; n != 0 {
			t.Errorf("%d fetches while nothing happens", n)
		}
		began := time.Now()
		expect(t, r.follow(stream("behind", 0), nil), "reply two @0/1", "caught up")
		expect(t, r.follow(stream("before", 1), nil), "reply one @1/0", "caught up")
		if d := time.Since(began); d > 500*time.Millisecond {
			t.Errorf("waited %v for transactions of others", d)
		}
		for i, sub := range held {
			finish[i]()
			expect(t, sub, fmt.Sprintf("reply two @%d/2", i+1))
		}
	})
}

// transact begins a transaction with a record in a partition, and gives what aborts it.
func (r *rig) transact(partition int32) (abort func()) {
	r.t.Helper()
	worker, err := kgo.NewClient(kgo.SeedBrokers(r.ListenAddrs()...), kgo.Dialer(r.dial), kgo.TransactionalID(fmt.Sprint("worker ", partition)),
		kgo.DefaultProduceTopic(gatewayTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(15*time.Minute))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(worker.Close)
	if err := worker.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	if err := worker.ProduceSync(context.Background(), &kgo.Record{Partition: partition, Value: []byte("x")}).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return func() {
		if err := worker.EndTransaction(context.Background(), kgo.TryAbort); err != nil {
			r.t.Fatal(err)
		}
	}
}

// However many partitions are read behind their windows at once, a broker is
// asked for no more answers at a time than there are places.
func TestPassesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 3 * maxPasses
		r := newRig(t, partitions)
		var under, most int // in the cluster's own loop, but for the sleeps
		var mu sync.Mutex
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			if q.(*kmsg.FetchRequest).MaxWaitMillis == int32(scanMaxWait.Milliseconds()) {
				mu.Lock()
				under++
				most = max(most, under)
				mu.Unlock()
				r.SleepControl(func() { time.Sleep(50 * time.Millisecond) })
				mu.Lock()
				under--
				mu.Unlock()
			}
			return nil, nil, false
		})
		var crowd sync.WaitGroup
		for p := range int32(partitions) {
			r.put(p, last("a", "one"))
			s := r.stream("a")
			s.Partition = p
			sub := r.follow(s, nil)
			crowd.Go(func() {
				if got := tell(next(sub)); got != fmt.Sprintf("reply one @%d/0", p) {
					t.Errorf("%q from partition %d", got, p)
				}
			})
		}
		crowd.Wait()
		if most != maxPasses {
			t.Errorf("%d fetches at once instead of %d", most, maxPasses)
		}
	})
}

// What lies behind the window and cannot be read is told to the operator, once.
func TestScanThatCannotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.ErrorLevel)
		r := newRig(t, 1)
		r.put(0, part("a", "one"), last("a", "two"))
		r.hub = r.newHub(Config{Logger: zap.New(core)})
		r.ControlKey(int16(kmsg.Fetch), func(q kmsg.Request) (kmsg.Response, error, bool) {
			r.KeepControl()
			f := q.(*kmsg.FetchRequest)
			if f.MaxWaitMillis != int32(scanMaxWait.Milliseconds()) {
				return nil, nil, false
			}
			a := f.ResponseKind().(*kmsg.FetchResponse)
			at := kmsg.NewFetchResponseTopic()
			at.Topic, at.TopicID = f.Topics[0].Topic, f.Topics[0].TopicID
			p := kmsg.NewFetchResponseTopicPartition()
			p.HighWatermark, p.LastStableOffset = 2, 2
			p.ErrorCode = kerr.CorruptMessage.Code
			at.Partitions = append(at.Partitions, p)
			a.Topics = append(a.Topics, at)
			return a, nil, true
		})
		expect(t, r.follow(r.stream("a"), nil), "silence")
		if n := logs.FilterMessage("partition of replies cannot be read back").Len(); n != 1 {
			t.Errorf("told %d times", n)
		}
	})
}
