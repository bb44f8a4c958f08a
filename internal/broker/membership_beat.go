package broker

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

const (
	// hurriedBeat is the pause between heartbeats while the next round is about
	// to come: a partition stands still until all members have heard of it.
	hurriedBeat = 75 * time.Millisecond

	// lostJoin is how long after a join a heartbeat has to be sent for its answer
	// to tell that the join never arrived.
	lostJoin = 2 * time.Second
)

// beat sends heartbeats until ctx ends. They go on while a join or a sync is in
// flight, which the coordinator may hold for long, over other connections.
func (m *Membership) beat(ctx context.Context) {
	for {
		id, generation, pause := m.due()
		var tick <-chan time.Time
		if id != "" {
			tick = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.nudge:
			if id == "" {
				continue
			}
		case <-tick:
		}
		sent := time.Now()
		err := m.heartbeat(ctx, id, generation)
		if err == nil && m.silent() {
			err = m.confirm(ctx, id, generation)
		}
		if ctx.Err() == nil {
			m.beaten(id, generation, sent, err)
		}
	}
}

// due says for whom the next heartbeat is and how long it can wait, "" if there
// is nobody yet.
func (m *Membership) due() (id string, generation int32, pause time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation < 0 {
		return "", -1, 0
	}
	pause = m.config.Heartbeat
	switch {
	case m.failures > 0:
		const doublings = 10
		pause = min(pause, hurriedBeat<<min(m.failures-1, doublings))
	case time.Now().Before(m.hurry):
		pause = min(pause, hurriedBeat)
	}
	return m.id, m.generation, pause
}

// silent reports whether nothing was heard from the coordinator for so long that
// the member may have been given up.
func (m *Membership) silent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.phase == idle && m.current && time.Since(m.good) > m.config.Session-m.config.Margin
}

// confirm asks for the assignment once more, which changes nothing. A coordinator
// that has just come up says of every heartbeat that it is good as long as it
// reads its log. It does not say so of a sync.
func (m *Membership) confirm(ctx context.Context, id string, generation int32) error {
	_, err := m.syncGroup(ctx, m.patience(), id, generation, nil)
	return err
}

// beaten takes a heartbeat's answer.
func (m *Membership) beaten(id string, generation int32, sent time.Time, err error) {
	if err != nil && notNow(err) {
		m.failed(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.id != id {
		return
	}
	current := m.generation == generation // else a join was answered meanwhile, and knows better
	switch {
	case err == nil:
		m.wellAnswered(sent, true)
		if current && m.phase == joining && sent.After(m.joining.Add(max(lostJoin, 2*m.config.Heartbeat))) {
			m.cut() // else the group would say that it shares out partitions anew
		}
	case isAny(err, kafka.RebalanceInProgress):
		m.wellAnswered(sent, false)
		if current && m.phase != joining {
			m.joinAgain("the group shares out partitions anew")
		}
	case isAny(err, kafka.IllegalGeneration):
		// A coordinator that has lost its last words. It knows the member.
		if current && m.phase == idle {
			m.joinAgain("the coordinator knows another generation")
		}
	case unknownMember(err):
		m.expel(id)
	}
}
