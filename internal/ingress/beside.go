package ingress

import "time"

const (
	// maxSenders is how many calls are under way to one leader for one topic.
	// More make batches smaller and nothing faster.
	maxSenders = 2

	// patience is how long a call is under way before a second one goes out
	// beside it. Most are answered sooner, and the next takes all that has come
	// meanwhile: fewer and larger calls cost the gateway and the broker less than
	// what is won by not waiting. One that takes longer, because the broker is far
	// away or a partition waits for its replicas, is not to hold up the rest.
	patience = 5 * time.Millisecond
)

// mayCall tells whether a call to a leader may go out now: for the sender of a
// call that has ended, or for a new one (nil). Where it is only too early, what
// waits is looked at again in time.
func (t *topic) mayCall(l *leader, own *call) bool {
	for _, c := range l.calls {
		if c == own {
			continue
		}
		if own == nil && len(l.calls) == maxSenders {
			return false
		}
		if left := patience - time.Since(c.began); left > 0 {
			t.wakeIn(left)
			return false
		}
	}
	return true
}

// wakeIn has senders started, after a while, that are too early now.
func (t *topic) wakeIn(left time.Duration) {
	switch {
	case t.waking: // for an earlier call, or another leader's: it is set again then
	case t.beside == nil:
		t.beside = time.AfterFunc(left, t.wakeBeside)
	default:
		t.beside.Reset(left)
	}
	t.waking = true
}

func (t *topic) wakeBeside() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waking = false
	t.wakeAll()
}
