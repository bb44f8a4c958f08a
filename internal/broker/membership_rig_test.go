package broker

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const (
	groupTopic = "orders"
	testGroup  = "workers"

	testSession   = 10 * time.Second
	testRebalance = 30 * time.Second
	testHeartbeat = time.Second
	testMargin    = 2 * time.Second
	testLeave     = 3 * time.Second
)

// peer is a process with a membership, behind a network of its own.
type peer struct {
	t *testing.T
	*Membership
	client *Client
	log    *zap.Logger
	logs   *observer.ObservedLogs

	open  atomic.Int32 // connections
	mu    sync.Mutex
	down  bool
	conns []net.Conn
	// told are the assignments so far, revoked the partitions given up so far;
	// gained and gaveUp say when.
	told           []Assignment
	revoked        []int32
	gained, gaveUp []move
	onRevoke       func(ctx context.Context, partitions []int32)
	onAssigned     func(Assignment)
}

// move is a partition that was gained or given up.
type move struct {
	partition int32
	at        time.Time
}

// standstills counts the partitions that went from one to another, and gives the
// longest time that one was with nobody.
func standstills(peers []*peer) (moves int, longest time.Duration) {
	for _, from := range peers {
		for _, gone := range from.gaveUp {
			var soonest time.Duration = 1 << 62
			for _, to := range peers {
				for _, come := range to.gained {
					if come.partition == gone.partition && !come.at.Before(gone.at) {
						soonest = min(soonest, come.at.Sub(gone.at))
					}
				}
			}
			moves, longest = moves+1, max(longest, soonest)
		}
	}
	return moves, longest
}

// groupWorld is a cluster with the group's topic.
func groupWorld(t *testing.T, partitions int32, options ...kfake.Opt) *world {
	t.Helper()
	w := newWorld(t, options...)
	if err := w.CreateTopic(groupTopic, partitions, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func testConfig() GroupConfig {
	return GroupConfig{
		Group: testGroup, Topic: groupTopic, Session: testSession, Rebalance: testRebalance,
		Heartbeat: testHeartbeat, Margin: testMargin, Leave: testLeave,
	}
}

// peer makes a process that has not joined yet.
func (w *world) peer() *peer {
	core, logs := observer.New(zap.DebugLevel)
	p := &peer{t: w.t, log: zap.New(core), logs: logs}
	p.client = New(Config{Addresses: w.ListenAddrs(), Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			return nil, errors.New("connection refused")
		}
		conn, err := w.network.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		p.open.Add(1)
		conn = &countedConn{Conn: conn, closed: sync.OnceFunc(func() { p.open.Add(-1) })}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns = append(p.conns, conn)
		return conn, nil
	}})
	w.t.Cleanup(p.client.Close)
	return p
}

// countedConn tells when it is closed.
type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// join makes a process that joins.
func (w *world) join(change ...func(*GroupConfig)) *peer {
	p := w.peer()
	p.join(change...)
	return p
}

func (p *peer) join(change ...func(*GroupConfig)) {
	c := testConfig()
	for _, f := range change {
		f(&c)
	}
	c.Logger = p.log
	ready := make(chan struct{}) // when callbacks can use the membership
	defer close(ready)
	c.Assigned = func(a Assignment) {
		<-ready
		p.mu.Lock()
		p.told = append(p.told, a)
		for _, n := range a.Gained {
			p.gained = append(p.gained, move{n, time.Now()})
		}
		hook := p.onAssigned
		p.mu.Unlock()
		if hook != nil {
			hook(a)
		}
	}
	if c.Revoke == nil {
		c.Revoke = func(ctx context.Context, partitions []int32) {
			<-ready
			if !slices.IsSorted(partitions) || !p.Holds() {
				p.t.Errorf("asked to give up %v, held: %v", partitions, p.Holds())
			}
			p.mu.Lock()
			hook := p.onRevoke
			for _, n := range partitions {
				p.gaveUp = append(p.gaveUp, move{n, time.Now()})
			}
			p.revoked = append(p.revoked, partitions...)
			p.mu.Unlock()
			if hook != nil {
				hook(ctx, partitions)
			}
		}
	}
	m := p.client.JoinGroup(c)
	p.Membership = m
	p.t.Cleanup(func() {
		p.cut(false)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		m.Leave(ctx)
	})
}

// cut takes the process's network down or up.
func (p *peer) cut(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	for _, conn := range p.conns {
		conn.Close()
	}
	p.conns = nil
}

// last gives the newest assignment.
func (p *peer) last() Assignment {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.told) == 0 {
		return Assignment{}
	}
	return p.told[len(p.told)-1]
}

// rounds counts the assignments so far.
func (p *peer) rounds() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.told)
}

// gaveUpSoFar are the partitions that the process was asked to give up.
func (p *peer) gaveUpSoFar() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.revoked)
}

// count counts the messages in its log.
func (p *peer) count(message string) int { return p.logs.FilterMessage(message).Len() }

func (p *peer) wants(owned ...int32) {
	p.t.Helper()
	if got := p.last().Owned; !slices.Equal(got, owned) || !p.Holds() {
		p.t.Fatalf("owns %v, want %v; held: %v", got, owned, p.Holds())
	}
}

// shared checks that the processes have all partitions, each one of them, and
// nobody more than one more than another.
func shared(t *testing.T, partitions int32, peers ...*peer) {
	t.Helper()
	var all []int32
	least, most := partitions, int32(0)
	for _, p := range peers {
		owned := p.last().Owned
		all = append(all, owned...)
		least, most = min(least, int32(len(owned))), max(most, int32(len(owned)))
		if !p.Holds() {
			t.Errorf("%v are not held", owned)
		}
	}
	slices.Sort(all)
	want := make([]int32, partitions)
	for i := range want {
		want[i] = int32(i)
	}
	if !slices.Equal(all, want) || most > least+1 {
		for _, p := range peers {
			t.Logf("generation %d: %v", p.last().Generation, p.last().Owned)
		}
		t.Fatalf("shared as %v, at least %d, at most %d", all, least, most)
	}
}

// holdFor lets time pass in which the processes hold what they have throughout.
func holdFor(t *testing.T, d time.Duration, peers ...*peer) {
	t.Helper()
	const step = 20 * time.Millisecond
	for range int(d / step) {
		pass(step)
		for i, p := range peers {
			if !p.Holds() {
				t.Fatalf("process %d does not hold its partitions", i)
			}
		}
	}
}

// lostOrRegained are the partitions of which a process was told one or the other.
func (p *peer) lostOrRegained() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []int32
	for _, a := range p.told {
		all = slices.Concat(all, a.Lost, a.Regained)
	}
	return all
}

// uninterrupted checks that the processes were never told of an interruption.
func uninterrupted(t *testing.T, peers ...*peer) {
	t.Helper()
	for i, p := range peers {
		if all := p.lostOrRegained(); len(all) > 0 {
			t.Errorf("process %d has lost or regained %v", i, all)
		}
	}
}

// grow gives a topic more partitions.
func (w *world) grow(topic string, to int32) {
	w.t.Helper()
	answer, err := w.API().CreatePartitions(w.t.Context(), &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: to}},
	})
	if err == nil {
		err = answer.Errors[topic]
	}
	if err != nil {
		w.t.Fatal(err)
	}
}
