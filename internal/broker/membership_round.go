package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/backoff"
)

const (
	// retryPause is how long a request waits that the coordinator could not take
	// just then.
	retryPause = 50 * time.Millisecond

	// firstAnswer bounds the first try of a join or a sync, which wait for other
	// members: a connection may have died without a word. The next one waits
	// until the group's time for a rebalance is over, and joinSlack more.
	firstAnswer = 6 * time.Second
	joinSlack   = 5 * time.Second

	// revokeAtMost bounds Revoke.
	revokeAtMost = 5 * time.Second
)

// errAgain says that a round has to begin once more.
var errAgain = errors.New("the membership has changed meanwhile")

// given is what a round has brought.
type given struct {
	grant
	id         string
	generation int32
	epoch      int
}

// run is the member's life.
func (m *Membership) run() {
	defer close(m.done)
	beating, stop := context.WithCancel(context.Background())
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		m.beat(beating)
	}()
	defer func() {
		stop()
		<-beats
	}()
	if !m.await() {
		return
	}
	for {
		ctx, cut := context.WithCancel(context.Background())
		round := make(chan given, 1)
		go func() {
			defer close(round)
			m.round(ctx, round)
		}()
		select {
		case g := <-round:
			cut()
			m.take(g)
		case <-m.ctx.Done():
		}
		if m.ctx.Err() != nil || !m.rest() {
			m.depart(func() {
				cut()
				for range round { // which waits for its end
				}
			})
			return
		}
	}
}

// await waits until the topic is there.
func (m *Membership) await() bool {
	var pause backoff.Backoff
	for {
		ctx, cancel := context.WithTimeout(m.ctx, m.patience())
		t, err := m.client.Topic(ctx, m.config.Topic)
		cancel()
		if err == nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.topic = t
			return true
		}
		if pause.Failures() == 0 && m.ctx.Err() == nil {
			m.log.Warn("topic of the consumer group is not there yet", zap.String("topic", m.config.Topic), zap.Error(err))
		}
		if !pause.Sleep(m.ctx) {
			return false
		}
	}
}

// rest waits until there is reason to join again. It returns false when the
// member is to leave.
func (m *Membership) rest() bool {
	for {
		m.mu.Lock()
		again := m.again
		m.mu.Unlock()
		if again {
			return true
		}
		select {
		case <-m.wake:
		case <-m.ctx.Done():
			return false
		}
	}
}

// round joins the group and takes what it is given, however often it takes. It
// leaves without a result only when ctx ends.
func (m *Membership) round(ctx context.Context, result chan<- given) {
	var pause backoff.Backoff
	const atOnce = 5 // in no circle
	for tries := 0; ctx.Err() == nil; tries++ {
		timeout := m.config.Rebalance + joinSlack
		if tries == 0 {
			timeout = min(timeout, firstAnswer)
		}
		g, err := m.attempt(ctx, timeout)
		switch {
		case err == nil:
			result <- g
			return
		case ctx.Err() != nil:
			return
		case errors.Is(err, errAgain), isAny(err, kafka.RebalanceInProgress), unknownMember(err):
			if tries < atOnce {
				continue
			}
		case isAny(err, kafka.IllegalGeneration):
		case notNow(err):
			m.failed(err)
		default:
			m.refuse(err)
		}
		if !pause.Sleep(ctx) {
			return
		}
	}
}

// attempt is one join and its sync. A sync that has failed leads to another
// join: one with the same metadata is told of the generation that there is.
func (m *Membership) attempt(ctx context.Context, timeout time.Duration) (given, error) {
	joined, epoch, err := m.join(ctx, timeout)
	if err != nil {
		return given{}, err
	}
	var shares []kmsg.SyncGroupRequestGroupAssignment
	if joined.LeaderID == joined.MemberID {
		shares = m.lead(ctx, joined.Members)
	}
	sent := time.Now()
	bytes, err := m.syncGroup(ctx, timeout, joined.MemberID, joined.Generation, shares)
	m.mu.Lock()
	defer m.mu.Unlock()
	if unknownMember(err) {
		m.expel(joined.MemberID)
	}
	switch {
	case m.epoch != epoch:
		return given{}, errAgain
	case err != nil:
		return given{}, err
	}
	m.wellAnswered(sent, true)
	m.refused = time.Time{}
	m.phase = idle
	m.notify()
	g := given{id: joined.MemberID, generation: joined.Generation, epoch: epoch}
	g.grant, err = decodeGrant(bytes, m.config.Topic)
	if err != nil && len(bytes) > 0 { // else the leader did not know of the member
		m.log.Error("assignment not readable, so this member takes no partition", zap.Int32("generation", g.generation), zap.Error(err))
	}
	return g, nil
}

// join joins the group's next generation. The epoch that it gives is that of the
// membership for which it was asked.
func (m *Membership) join(ctx context.Context, timeout time.Duration) (*kmsg.JoinGroupResponse, int, error) {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	m.mu.Lock()
	id, why, epoch, metadata := m.id, m.why, m.epoch, m.claim()
	sent := time.Now()
	m.again, m.why = false, ""
	m.phase, m.joining, m.cut = joining, sent, cut
	m.mu.Unlock()
	if id == "" {
		timeout = m.config.Rebalance + joinSlack // another try would be another member
	}
	joined, err := m.joinGroup(ctx, timeout, id, why, metadata)

	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = func() {}
	if unknownMember(err) {
		m.expel(id)
	}
	switch {
	case m.epoch != epoch:
		return nil, 0, errAgain
	case isAny(err, kafka.MemberIDRequired):
		m.id = joined.MemberID
		return nil, 0, errAgain
	case err != nil:
		return nil, 0, err
	}
	m.id, m.generation, m.phase, m.hurry = joined.MemberID, joined.Generation, syncing, time.Time{}
	m.wellAnswered(sent, true)
	m.notify()
	signal(m.nudge)
	return joined, epoch, nil
}

// take takes what a round has brought, tells it, and gives up what the leader
// wants back.
func (m *Membership) take(g given) {
	m.mu.Lock()
	if m.epoch != g.epoch {
		m.mu.Unlock()
		return // it was forgotten again, and the next round is due
	}
	had := m.owned
	revoke := common(g.revoke, had)
	a := Assignment{Generation: g.generation, Fingerprints: g.fingerprints}
	a.Owned = sorted(slices.Concat(g.owned, revoke))
	a.Gained, a.Lost = without(a.Owned, had), without(had, a.Owned)
	if !m.current {
		a.Regained = common(a.Owned, had)
	}
	m.owned, m.told, m.current = a.Owned, g.generation, true
	m.tenure++
	a.Tenure = m.tenure
	for _, p := range slices.Concat(a.Gained, a.Regained) {
		m.tenures[p] = a.Tenure
	}
	if g.moving {
		m.hurry = time.Now().Add(2 * revokeAtMost)
		signal(m.nudge)
	}
	m.mu.Unlock()

	a.Topic = m.shared(g.partitions)
	m.config.Assigned(a)
	m.mu.Lock()
	m.sure = m.epoch == g.epoch
	ok := m.sure && len(revoke) > 0
	m.mu.Unlock()
	if !ok {
		return
	}
	if m.config.Revoke != nil {
		ctx, cancel := context.WithTimeout(context.Background(), min(m.config.Rebalance/3, revokeAtMost))
		m.config.Revoke(ctx, slices.Clone(revoke))
		cancel()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owned = without(m.owned, revoke)
	m.joinAgain("partitions were given up")
}

// shared asks for the topic after it was shared out, and gives it as many
// partitions as were, so that growth just then is seen as growth.
func (m *Membership) shared(partitions int32) Topic {
	ctx, cancel := context.WithTimeout(m.ctx, m.patience())
	defer cancel()
	t, err := m.client.Topic(ctx, m.config.Topic)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		t = m.topic
	}
	m.topic = t
	if partitions == 0 {
		return t // nobody has said
	}
	leaders := make([]int32, min(partitions, maxCounted))
	for i := range leaders {
		leaders[i] = -1
	}
	copy(leaders, t.Leaders)
	t.Leaders = leaders
	return t
}

// depart gives everything up and leaves the group. A join or a sync that is on
// its way goes on until partitions were given up: until then the group takes
// commits only from those who take part.
func (m *Membership) depart(endRound func()) {
	m.mu.Lock()
	owned, ctx := slices.Clone(m.owned), m.leave
	m.mu.Unlock()
	if len(owned) > 0 && m.config.Revoke != nil && m.Holds() {
		m.config.Revoke(ctx, owned)
	}
	endRound()
	m.mu.Lock()
	id := m.id
	m.owned, m.current, m.sure = nil, false, false
	m.mu.Unlock()
	limit, cancel := context.WithTimeout(context.Background(), m.config.Leave)
	defer cancel()
	if id != "" {
		if err := m.leaveGroup(limit, id); err != nil {
			m.log.Warn("consumer group not left, so its members wait for the end of the session", zap.Error(err))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id, m.generation = "", -1
	m.epoch++
	m.notify()
}

// common gives the partitions that are in both lists, without those that are in
// one. Both lists are sorted.
func common(a, b []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(a), func(p int32) bool {
		_, ok := slices.BinarySearch(b, p)
		return !ok
	})
}

// without gives the partitions of a that are not in b. Both lists are sorted.
func without(a, b []int32) []int32 {
	return slices.DeleteFunc(slices.Clone(a), func(p int32) bool {
		_, ok := slices.BinarySearch(b, p)
		return ok
	})
}
