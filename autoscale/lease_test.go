package autoscale

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// joinedLease is long enough for a process to join, and for a rebalance.
const joinedLease = 5 * time.Second

// leaseCluster is a cluster in the test's bubble.
type leaseCluster struct {
	t *testing.T
	*kfake.Cluster
	network kfake.VirtualNetwork
}

func newLeaseCluster(t *testing.T, options ...kfake.Opt) *leaseCluster {
	t.Helper()
	c := &leaseCluster{t: t}
	options = append([]kfake.Opt{kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(c.network.Listen)}, options...)
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	c.Cluster = cluster
	return c
}

// candidate is a process that takes part in a lease, over a network of its own.
type candidate struct {
	*GroupLease
	client *broker.Client
	logs   *observer.ObservedLogs

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func (c *leaseCluster) candidate(create bool) *candidate {
	core, logs := observer.New(zap.DebugLevel)
	p := &candidate{logs: logs, conns: make(map[net.Conn]struct{})}
	p.client = broker.New(broker.Config{Addresses: c.ListenAddrs(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.down {
			return nil, errors.New("connection refused")
		}
		conn, err := c.network.DialContext(ctx, network, address)
		if err == nil {
			p.conns[conn] = struct{}{}
		}
		return conn, err
	}})
	p.GroupLease = NewLease(LeaseConfig{Broker: p.client, Topic: "orders", Group: "workers", Create: create, Logger: zap.New(core)})
	c.t.Cleanup(func() {
		p.Close()
		p.client.Close()
	})
	return p
}

// cut closes its connections and refuses new ones.
func (p *candidate) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for conn := range p.conns {
		conn.Close()
	}
	clear(p.conns)
}

func (p *candidate) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// stays lets time pass, second by second, in which the candidate has to hold the
// lease all along.
func (p *candidate) stays(t *testing.T, d time.Duration) {
	t.Helper()
	for range d / time.Second {
		settle(time.Second)
		p.stands(t, true, false)
	}
}

// stands checks what a candidate knows.
func (p *candidate) stands(t *testing.T, held, elsewhere bool) int32 {
	t.Helper()
	since, is := p.Held()
	if is != held || p.Elsewhere() != elsewhere {
		t.Fatalf("held %v and elsewhere %v, want %v and %v", is, p.Elsewhere(), held, elsewhere)
	}
	return since
}

// settle lets virtual time pass, and waits until what it set off has settled.
func settle(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestLease(t *testing.T) {
	inBubble := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}

	inBubble("is held by one, who keeps it when others come and go", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		since := one.stands(t, true, false)
		if info := c.TopicInfo(LeaseTopic); info == nil || c.PartitionInfo(LeaseTopic, 1) != nil {
			t.Fatal("the topic was not made with one partition")
		}
		for range 8 { // whoever of them has the smaller name
			other := c.candidate(true)
			one.stays(t, joinedLease)
			other.stands(t, false, true)
			other.Close()
			one.stays(t, joinedLease)
		}
		one.stays(t, time.Minute)
		if again, _ := one.Held(); again != since {
			t.Fatalf("held since generation %d, then since %d, although nobody else had it", since, again)
		}
	})

	inBubble("goes on at once when the holder leaves", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		before := one.stands(t, true, false)
		two := c.candidate(true)
		settle(joinedLease)
		left := time.Now()
		one.Close()
		one.stands(t, false, true)
		for _, held := two.Held(); !held; _, held = two.Held() {
			<-two.Changed()
		}
		if took := time.Since(left); took > 2*leaseHeartbeat {
			t.Fatalf("handed over in %s", took)
		}
		if after := two.stands(t, true, false); after <= before {
			t.Fatalf("generation %d after %d", after, before)
		}
	})

	inBubble("is taken over from a holder that is cut off, who knows by the clock", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		two := c.candidate(true)
		settle(joinedLease)
		cut := time.Now()
		one.cut()
		told := one.Changed()
		<-told
		if took := time.Since(cut); took > leaseSession-leaseMargin {
			t.Fatalf("held for %s without a word", took)
		}
		one.stands(t, false, false)
		two.stands(t, false, true)
		for _, held := two.Held(); !held; _, held = two.Held() {
			<-two.Changed()
		}
		if took := time.Since(cut); took > leaseSession+2*leaseHeartbeat {
			t.Fatalf("taken over in %s", took)
		}
		settle(time.Minute)
		one.stands(t, false, false) // for all it knows, the broker is down
		one.mend()
		settle(3 * joinedLease)
		one.stands(t, false, true)
		two.stands(t, true, false)
	})

	inBubble("is back after an outage for all", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		before := one.stands(t, true, false)
		one.cut()
		settle(5 * time.Second)
		one.stands(t, true, false) // not for a hiccup
		settle(time.Minute)
		one.stands(t, false, false)
		one.mend()
		settle(leaseSession + joinedLease)
		if after := one.stands(t, true, false); after <= before {
			t.Fatalf("generation %d after %d", after, before)
		}
	})

	inBubble("outlives a hiccup", func(t *testing.T) {
		for gone := range 5 {
			c := newLeaseCluster(t)
			one := c.candidate(true)
			settle(joinedLease)
			one.cut()
			settle(time.Duration(gone) * time.Second)
			one.stands(t, true, false)
			one.mend()
			settle(leaseSession + joinedLease) // its old place has to go first
			one.stays(t, time.Minute)
			one.Close()
			c.Close()
		}
	})

	inBubble("is not held without good heartbeats", func(t *testing.T) {
		c := newLeaseCluster(t)
		var silent atomic.Bool
		c.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			if !silent.Load() {
				return nil, nil, false
			}
			return nil, nil, true // no answer
		})
		silent.Store(true)
		one := c.candidate(true)
		settle(leaseSession) // the join counts as one
		one.stands(t, false, false)
		silent.Store(false)
		settle(2 * joinedLease)
		one.stands(t, true, false)
		silent.Store(true)
		settle(leaseSession - leaseMargin)
		one.stands(t, false, false)
	})

	inBubble("is nobody's of those put out of the group", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		c.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			answer := r.ResponseKind().(*kmsg.HeartbeatResponse)
			answer.ErrorCode = int16(kafka.UnknownMemberId)
			return answer, nil, true
		})
		settle(2 * leaseHeartbeat)
		one.stands(t, false, false)
	})

	inBubble("is kept while the others share out for long", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		two := c.candidate(true)
		one.stays(t, joinedLease)
		two.cut() // for the group, it may still come back
		three := c.candidate(true)
		one.stays(t, leaseSession+leaseRebalance)
		three.stands(t, false, true)
	})

	inBubble("waits for a topic that it may not make", func(t *testing.T) {
		c := newLeaseCluster(t, kfake.AllowAutoTopicCreation())
		one := c.candidate(false)
		settle(time.Minute)
		one.stands(t, false, false)
		if c.TopicInfo(LeaseTopic) != nil {
			t.Fatal("the topic was made although nobody may")
		}
		if n := one.logs.FilterMessage("topic of leases is not there yet").Len(); n != 1 {
			t.Fatalf("told %d times", n)
		}
		if err := c.CreateTopic(LeaseTopic, 1, nil); err != nil {
			t.Fatal(err)
		}
		settle(joinedLease)
		one.stands(t, true, false)
	})

	inBubble("outlives its topic", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		if err := c.DeleteTopic(LeaseTopic); err != nil {
			t.Fatal(err)
		}
		two := c.candidate(false)
		one.stays(t, time.Minute)
		two.stands(t, false, false)
	})

	inBubble("is another for another group", func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		other := NewLease(LeaseConfig{Broker: one.client, Topic: "orders", Group: "others", Create: true})
		defer other.Close()
		settle(joinedLease)
		if _, held := other.Held(); !held {
			t.Fatal("one lease for two groups")
		}
		one.stands(t, true, false)
	})
}

// The generations of a group that lost its last member go on, since a commit
// keeps the group.
func TestGenerationsOfALeaseGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLeaseCluster(t)
		one := c.candidate(true)
		settle(joinedLease)
		answer, err := one.client.API().OffsetFetch(t.Context(), &kafka.OffsetFetchRequest{
			GroupID: LeaseGroup("orders", "workers"), Topics: map[string][]int{LeaseTopic: {0}},
		})
		if err != nil || answer.Topics[LeaseTopic][0].CommittedOffset != 0 {
			t.Fatal("nothing was committed", answer, err)
		}
		before := one.stands(t, true, false)
		one.Close()
		settle(time.Minute)
		two := c.candidate(true)
		settle(joinedLease)
		if after := two.stands(t, true, false); after <= before {
			t.Fatalf("generation %d after %d", after, before)
		}
	})
}

// A process that was frozen for longer than the session takes no order for its
// own: the clock tells it before anything else could.
func TestAFrozenHolderKnowsByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := newLeaseCluster(t).candidate(true)
		settle(joinedLease)
		one.stands(t, true, false)
		// Nothing of it hears or tells anything, as in a process that was stopped.
		// The next thing it does is to ask.
		one.cut()
		one.expiry.Stop()
		<-time.After(leaseSession - leaseMargin)
		if _, held := one.Held(); held {
			t.Fatal("held after its time")
		}
	})
}

func TestLeavingALeaseIsBounded(t *testing.T) {
	for name, key := range map[string]kmsg.Key{
		"in a join": kmsg.JoinGroup, "in a heartbeat": kmsg.Heartbeat, "in a commit": kmsg.OffsetCommit,
		"in the leaving": kmsg.LeaveGroup, "asking for the topic": kmsg.Metadata,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newLeaseCluster(t)
				c.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					return nil, nil, true
				})
				l := c.candidate(true)
				settle(joinedLease)
				begun := time.Now()
				l.Close()
				l.Close() // once more does nothing
				if took := time.Since(begun); took > leaseLeave+time.Second {
					t.Fatalf("left after %v", took)
				}
			})
		})
	}
}
