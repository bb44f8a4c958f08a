package world

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// keeper has the fake broker treat the members of groups as Kafka does, where it
// does otherwise:
//
//   - a member whose connection is gone when its JoinGroup or SyncGroup is answered has no
//     session, and is never missed; Kafka begins one;
//   - a member that waits in JoinGroup or SyncGroup is thrown out when the session of its last
//     heartbeat ends; Kafka knows that it waits;
//   - one that leaves while it waits in SyncGroup is taken off the count of those that
//     have joined, so that the count is never full again;
//   - each member that joins begins the rebalance's time anew; Kafka's ends once.
//
// With these, a group whose members die in the middle of joining can go on for ever
// without a generation.
type keeper struct {
	w      *world
	client *kgo.Client

	mu     sync.Mutex
	own    string // the member for which the keeper itself asks something
	groups map[string]*kept
}

// kept is a group.
type kept struct {
	members    map[string]*member
	generation int32
	preparing  time.Time // since when; zero if it is not
	// stuck says that all have joined and the broker does not see it: it will when
	// nobody joins for a while.
	stuck bool
}

// member is one of them.
type member struct {
	heard time.Duration // when it said something last
	waits bool          // in JoinGroup, or in SyncGroup
}

// Kafka's bounds, as all our groups have them.
const (
	session   = 10 * time.Second
	rebalance = 15 * time.Second
)

func newKeeper(w *world) (*keeper, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(w.addresses...), kgo.Dialer(w.network.DialContext))
	if err != nil {
		return nil, err
	}
	k := &keeper{w: w, client: client, groups: make(map[string]*kept)}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetCommit} {
		w.cluster.ControlKey(int16(key), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.cluster.KeepControl()
			switch q := r.(type) {
			case *kmsg.JoinGroupRequest:
				if k.hear(q.Group, q.MemberID, true) {
					a := q.ResponseKind().(*kmsg.JoinGroupResponse)
					a.ErrorCode = kerr.CoordinatorLoadInProgress.Code
					return a, nil, true
				}
			case *kmsg.SyncGroupRequest:
				k.hear(q.Group, q.MemberID, true)
			case *kmsg.HeartbeatRequest:
				k.hear(q.Group, q.MemberID, false)
			case *kmsg.OffsetCommitRequest:
				w.watchCommit(q)
			}
			return nil, nil, false
		})
	}
	return k, nil
}

// hear takes note of a member's request, and tells whether the group is stuck.
func (k *keeper) hear(group, id string, waits bool) (stuck bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[group]
	if g == nil {
		g = &kept{members: make(map[string]*member)}
		k.groups[group] = g
	}
	if id == "" || id == k.own {
		return g.stuck
	}
	if m := g.members[id]; m != nil {
		m.heard, m.waits = k.w.history.now(), waits
	} else {
		g.members[id] = &member{heard: k.w.history.now(), waits: waits}
	}
	return g.stuck
}

// run looks after all groups until the world ends.
func (k *keeper) run() {
	defer k.client.Close()
	for k.w.sleep(500 * time.Millisecond) {
		k.mu.Lock()
		var names []string
		for name := range k.groups {
			names = append(names, name)
		}
		k.mu.Unlock()
		for _, name := range names {
			k.look(name)
		}
	}
}

// look looks after one.
func (k *keeper) look(name string) {
	is := k.w.cluster.GroupInfo(name)
	if is == nil {
		return
	}
	var waiting, silent []string
	k.mu.Lock()
	g := k.groups[name]
	preparing, completing := is.State == "PreparingRebalance", is.State == "CompletingRebalance"
	if is.Epoch != g.generation {
		// The rebalance is over, and sessions begin.
		g.generation, g.preparing = is.Epoch, time.Time{}
		for _, m := range g.members {
			m.heard, m.waits = k.w.history.now(), m.waits && completing && k.w.history.now()-m.heard < 500*time.Millisecond
		}
	}
	switch {
	case !preparing:
		g.preparing = time.Time{}
	case g.preparing.IsZero():
		g.preparing = time.Now()
	}
	over := preparing && time.Since(g.preparing) > rebalance
	for _, m := range g.members {
		m.waits = m.waits && (preparing || completing) // in a stable group the answer comes at once
	}
	for _, there := range is.Members {
		m := g.members[there.MemberID]
		if m == nil {
			m = &member{heard: k.w.history.now(), waits: preparing}
			g.members[there.MemberID] = m
		}
		switch {
		case m.waits:
			waiting = append(waiting, there.MemberID)
		case over || k.w.history.now()-m.heard > session+time.Second:
			silent = append(silent, there.MemberID)
		}
	}
	g.stuck = over && len(silent) == 0
	k.mu.Unlock()
	for _, id := range waiting {
		r := kmsg.NewPtrHeartbeatRequest()
		r.Group, r.MemberID, r.Generation = name, id, is.Epoch
		k.ask(id, r)
	}
	for _, id := range silent {
		k.w.history.note("group %s: member %.16s is thrown out as Kafka would do it", name, id)
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Group, r.MemberID = name, id
		one := kmsg.NewLeaveGroupRequestMember()
		one.MemberID = id
		r.Members = append(r.Members, one)
		k.ask(id, r)
	}
}

// ask asks something for a member.
func (k *keeper) ask(id string, r kmsg.Request) {
	k.mu.Lock()
	k.own = id
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = k.client.Request(ctx, r) // it is asked again soon
	k.mu.Lock()
	k.own = ""
	k.mu.Unlock()
}
