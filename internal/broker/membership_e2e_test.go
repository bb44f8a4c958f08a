//go:build e2e

package broker

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
)

// patience is how long anything may take on a real Kafka.
const patience = time.Minute

// ledger checks that each partition has one owner at a time, and counts what
// each was committed.
type ledger struct {
	t *testing.T

	mu        sync.Mutex
	owner     map[int32]*keeper
	gone      map[int32]time.Time // when a partition was given up
	longest   time.Duration       // that one was with nobody
	committed map[int32]int64
	refused   int
	changed   chan struct{}
}

func newLedger(t *testing.T) *ledger {
	return &ledger{
		t: t, owner: make(map[int32]*keeper), gone: make(map[int32]time.Time),
		committed: make(map[int32]int64), changed: make(chan struct{}),
	}
}

// await waits until something is so.
func (l *ledger) await(what string, is func() bool) {
	l.t.Helper()
	limit := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		l.mu.Lock()
		ok, changed := is(), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-look.C:
		case <-limit:
			l.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

func (l *ledger) news() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// keeper is a member that commits what it owns all the time.
type keeper struct {
	*ledger
	*Membership
	name   string
	logs   *observer.ObservedLogs
	client *Client
	stop   func()

	owned, lost, regained []int32 // under the ledger's lock
	committing            sync.WaitGroup
	sending               sync.Mutex // one commit at a time

	network sync.Mutex
	down    bool
	conns   []net.Conn
}

func (l *ledger) keep(name, group, topic string, addresses []string) *keeper {
	core, logs := observer.New(zap.DebugLevel)
	k := &keeper{ledger: l, name: name, logs: logs}
	k.client = New(Config{Addresses: addresses, Dial: k.dial})
	ready := make(chan struct{})
	k.Membership = k.client.JoinGroup(GroupConfig{
		Group: group, Topic: topic, Session: 10 * time.Second, Rebalance: 30 * time.Second, Heartbeat: 500 * time.Millisecond,
		Margin: 2 * time.Second, Leave: 5 * time.Second, Logger: zap.New(core),
		Assigned: func(a Assignment) { <-ready; k.assigned(a) },
		Revoke:   func(ctx context.Context, partitions []int32) { <-ready; k.revoke(ctx, partitions) },
	})
	close(ready)
	ctx, cancel := context.WithCancel(context.Background())
	k.committing.Go(func() { k.commitOften(ctx) })
	k.stop = sync.OnceFunc(func() {
		bounded, done := context.WithTimeout(context.Background(), patience)
		defer done()
		k.Leave(bounded)
		cancel()
		k.committing.Wait()
		k.client.Close()
	})
	l.t.Cleanup(k.stop)
	return k
}

func (k *keeper) dial(ctx context.Context, network, address string) (net.Conn, error) {
	k.network.Lock()
	down := k.down
	k.network.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		k.network.Lock()
		defer k.network.Unlock()
		k.conns = append(k.conns, conn)
	}
	return conn, err
}

// cut takes the member's network down or up.
func (k *keeper) cut(down bool) {
	k.network.Lock()
	defer k.network.Unlock()
	k.down = down
	for _, conn := range k.conns {
		_ = conn.Close()
	}
	k.conns = nil
}

func (k *keeper) assigned(a Assignment) {
	k.ledger.mu.Lock()
	defer k.ledger.mu.Unlock()
	defer k.news()
	for _, p := range a.Lost {
		if k.owner[p] == k {
			delete(k.owner, p)
		}
	}
	for _, p := range slices.Concat(a.Gained, a.Regained) {
		if o := k.owner[p]; o != nil && o != k && o.Holds() {
			k.t.Errorf("partition %d is given to %s while %s holds it", p, k.name, o.name)
		}
		k.owner[p] = k
		if at, ok := k.gone[p]; ok {
			k.longest = max(k.longest, time.Since(at))
			delete(k.gone, p)
		}
	}
	k.owned = slices.Clone(a.Owned)
	k.lost, k.regained = append(k.lost, a.Lost...), append(k.regained, a.Regained...)
}

func (k *keeper) revoke(ctx context.Context, partitions []int32) {
	k.commitOnce(ctx, partitions)
	k.ledger.mu.Lock()
	defer k.ledger.mu.Unlock()
	defer k.news()
	for _, p := range partitions {
		delete(k.owner, p)
		k.gone[p] = time.Now()
	}
	k.owned = without(k.owned, partitions)
}

func (k *keeper) commitOften(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		k.commitOnce(ctx, nil)
	}
}

// commitOnce commits one more for partitions, nil for all. One at a time: else one
// of a partition that is given up could come after that of the next owner.
func (k *keeper) commitOnce(ctx context.Context, partitions []int32) {
	k.sending.Lock()
	defer k.sending.Unlock()
	k.ledger.mu.Lock()
	if partitions == nil {
		partitions = slices.Clone(k.owned)
	}
	var offsets []CommitOffset
	for _, p := range partitions {
		offsets = append(offsets, CommitOffset{Partition: p, Offset: k.committed[p] + 1})
	}
	k.ledger.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := k.Commit(bounded, offsets)
	k.ledger.mu.Lock()
	defer k.ledger.mu.Unlock()
	if err != nil {
		k.ledger.refused++
		return
	}
	for _, o := range offsets {
		k.committed[o.Partition] = max(k.committed[o.Partition], o.Offset)
	}
}

// shared waits until the members have all partitions, and nobody more than one
// more than another.
func (l *ledger) shared(partitions int, members ...*keeper) {
	l.t.Helper()
	l.await("shared out", func() bool {
		all, least, most := 0, partitions, 0
		for _, k := range members {
			if !k.Holds() {
				return false
			}
			all, least, most = all+len(k.owned), min(least, len(k.owned)), max(most, len(k.owned))
		}
		return all == partitions && len(l.owner) == partitions && most <= least+1
	})
}

// Members that come and go on a real Kafka, while all commit, its coordinator is
// killed, and one of them is cut off.
func TestMembershipOnRealKafka(t *testing.T) {
	t.Parallel()
	const topic, group, partitions = "orders", "workers", 12
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	client := New(Config{Addresses: cluster.Addresses()})
	defer client.Close()
	if _, err := client.Ensure(t.Context(), TopicSpec{Name: topic, Partitions: partitions, Replication: 3}); err != nil {
		t.Fatal(err)
	}
	l := newLedger(t)
	keep := func(name string) *keeper { return l.keep(name, group, topic, cluster.Addresses()) }
	one := keep("one")
	l.shared(partitions, one)
	two := keep("two")
	l.shared(partitions, one, two)
	three := keep("three")
	l.shared(partitions, one, two, three)
	one.stop()
	l.shared(partitions, two, three)
	one = keep("one again")
	l.shared(partitions, one, two, three)
	t.Logf("the longest time that a partition was with nobody: %v", l.longest.Round(time.Millisecond))

	// The coordinator dies, and another takes over.
	ids := []string{one.MemberID(), two.MemberID(), three.MemberID()}
	found, err := client.Coordinators(t.Context(), []string{group})
	if err != nil {
		t.Fatal(err)
	}
	coordinator := int(found[group]) - 1
	begun := time.Now()
	cluster.Kill(coordinator)
	var lapsed time.Time
	var lapse time.Duration
	l.await("all hold again", func() bool {
		held := one.Holds() && two.Holds() && three.Holds()
		switch {
		case !held && lapsed.IsZero():
			lapsed = time.Now()
		case held && !lapsed.IsZero():
			lapse, lapsed = lapse+time.Since(lapsed), time.Time{}
		}
		return held && time.Since(begun) > 15*time.Second
	})
	l.shared(partitions, one, two, three)
	t.Logf("not held for %v after the coordinator was killed", lapse.Round(time.Millisecond))
	before := l.count()
	l.await("commits go on", func() bool { return l.countLocked() > before+partitions })
	cluster.Restart(coordinator)
	l.shared(partitions, one, two, three)
	if !slices.Equal(ids, []string{one.MemberID(), two.MemberID(), three.MemberID()}) {
		t.Error("members have other names after the coordinator's death")
	}

	// A process that is cut off is out with its session, and the others go on.
	begun = time.Now()
	three.cut(true)
	l.await("taken over", func() bool {
		return len(one.owned)+len(two.owned) == partitions && !three.Holds()
	})
	t.Logf("taken over from one that was cut off in %v", time.Since(begun).Round(time.Millisecond))
	three.cut(false)
	l.shared(partitions, one, two, three)
	if len(three.lost) == 0 {
		t.Error("the member that was cut off was told of no loss")
	}
	for _, k := range []*keeper{one, two} {
		if len(k.lost)+len(k.regained) > 0 {
			t.Errorf("%s has lost %v and regained %v", k.name, k.lost, k.regained)
		}
	}
	for _, k := range []*keeper{one, two, three} {
		k.stop()
	}

	// The last commit of each partition is what the group remembers.
	reader := &Membership{client: client, config: GroupConfig{Group: group, Topic: topic}, coordinator: -1}
	got, err := reader.Committed(t.Context(), []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	if err != nil {
		t.Fatal(err)
	}
	for p, c := range got {
		if c.Offset < l.committed[p] {
			t.Errorf("partition %d is at %d, committed was %d", p, c.Offset, l.committed[p])
		}
	}
	t.Logf("%d commits, %d refused", l.count(), l.refused)
}

func (l *ledger) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.countLocked()
}

func (l *ledger) countLocked() int64 {
	var n int64
	for _, offset := range l.committed {
		n += offset
	}
	return n
}

// One broker alone that is killed and back after more than a session loses
// nobody's membership, and members of another kind are told apart.
func TestMembershipOutlivesItsOnlyRealKafka(t *testing.T) {
	t.Parallel()
	const topic, group, partitions = "orders", "workers", 6
	cluster := kafkatest.Start(t, kafkatest.Options{})
	client := New(Config{Addresses: cluster.Addresses()})
	defer client.Close()
	if _, err := client.Ensure(t.Context(), TopicSpec{Name: topic, Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	l := newLedger(t)
	one, two := l.keep("one", group, topic, cluster.Addresses()), l.keep("two", group, topic, cluster.Addresses())
	l.shared(partitions, one, two)
	ids := []string{one.MemberID(), two.MemberID()}
	cluster.Kill()
	begun := time.Now()
	l.await("the sessions are over by the clock", func() bool { return time.Since(begun) > 15*time.Second && !one.Holds() && !two.Holds() })
	cluster.Restart()
	l.shared(partitions, one, two)
	if !slices.Equal(ids, []string{one.MemberID(), two.MemberID()}) || len(one.lost)+len(one.regained)+len(two.lost)+len(two.regained) > 0 {
		t.Errorf("names %s and %s after %v; lost %v and %v", one.MemberID(), two.MemberID(), ids, one.lost, two.lost)
	}

	other, err := kgo.NewClient(kgo.SeedBrokers(cluster.Addresses()...), kgo.ConsumerGroup("others"), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.RangeBalancer()))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l.await("another kind of member has joined", func() bool {
		generation, member := other.GroupMetadata()
		return generation != "" && member >= 0
	})
	stranger := newLedger(t).keep("stranger", "others", topic, cluster.Addresses())
	l.await("it is told apart", func() bool {
		told := stranger.logs.FilterMessage("consumer group refuses this member").All()
		return len(told) > 0 && strings.Contains(told[0].ContextMap()["error"].(string), "members of another kind")
	})
	other.Close()
	stranger.ledger.await("it is let in", func() bool { return len(stranger.owned) == partitions })
}
