package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// mute has the broker take requests of a group and answer none while it is set.
func (w *world) mute(keys ...kmsg.Key) *atomic.Bool {
	muted := new(atomic.Bool)
	for _, key := range keys {
		w.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return nil, nil, muted.Load()
		})
	}
	return muted
}

// groupKeys are the requests to a group's coordinator.
var groupKeys = []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat, kmsg.OffsetCommit, kmsg.OffsetFetch, kmsg.FindCoordinator}

// answer has the broker answer heartbeats with an error while the code is not 0.
func (w *world) answerBeats() *atomic.Int32 {
	code := new(atomic.Int32)
	w.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.KeepControl()
		if code.Load() == 0 {
			return nil, nil, false
		}
		answer := r.ResponseKind().(*kmsg.HeartbeatResponse)
		answer.ErrorCode = int16(code.Load())
		return answer, nil, true
	})
	return code
}

// A coordinator out of sight ends nothing as long as it knows the member.
func TestMembershipOutlivesSilence(t *testing.T) {
	bubble(t, "cut connections", func(t *testing.T) {
		w := groupWorld(t, 4)
		one, two := w.join(), w.join()
		pass(5 * time.Second)
		rounds := one.rounds() + two.rounds()
		for range 20 {
			one.cut(false) // what is open breaks, new connections work
			holdFor(t, 700*time.Millisecond, one, two)
		}
		if n := one.rounds() + two.rounds(); n != rounds {
			t.Errorf("%d rounds for cut connections", n-rounds)
		}
		if n := one.count("consumer group out of reach"); n > 0 {
			t.Errorf("told %d times", n)
		}
	})

	for name, silence := range map[string]time.Duration{"8 s without an answer": 8 * time.Second, "30 s without an answer": 30 * time.Second} {
		bubble(t, name, func(t *testing.T) {
			w := groupWorld(t, 4)
			// The coordinator does not count the time in which it answers nobody, as
			// Kafka does after its restart.
			one, two := w.join(longSession), w.join(longSession)
			pass(5 * time.Second)
			id, rounds := one.MemberID(), one.rounds()
			muted := w.mute(groupKeys...)
			muted.Store(true)
			held := true
			for range silence / time.Second {
				pass(time.Second)
				held = held && one.Holds()
			}
			muted.Store(false)
			pass(6 * time.Second)
			shared(t, 4, one, two)
			if one.MemberID() != id || one.rounds() != rounds {
				t.Errorf("member %s after %s, %d rounds", one.MemberID(), id, one.rounds()-rounds)
			}
			if want := silence < testSession-testMargin; held != want {
				t.Errorf("held %v over %v", held, silence)
			}
			uninterrupted(t, one, two)
		})
	}

	for name, code := range map[string]kafka.Error{
		"not the coordinator": kafka.NotCoordinatorForGroup, "loading": kafka.GroupLoadInProgress, "none": kafka.GroupCoordinatorNotAvailable,
	} {
		bubble(t, name, func(t *testing.T) {
			w := groupWorld(t, 4)
			one := w.join()
			pass(time.Second)
			beats := w.answerBeats()
			beats.Store(int32(code))
			holdFor(t, 6*time.Second, one)
			beats.Store(0)
			holdFor(t, 6*time.Second, one)
			if one.rounds() != 1 {
				t.Errorf("%d rounds", one.rounds())
			}
		})
	}

	bubble(t, "a coordinator that moves", func(t *testing.T) {
		w := groupWorld(t, 6, kfake.NumBrokers(3), brokers(3))
		one, two := w.join(), w.join()
		pass(5 * time.Second)
		rounds := one.rounds() + two.rounds()
		moved := 0
		for range 8 {
			before := w.CoordinatorFor(testGroup)
			w.RehashCoordinators()
			if w.CoordinatorFor(testGroup) != before {
				moved++
			}
			holdFor(t, 3*time.Second, one, two)
		}
		if moved == 0 {
			t.Fatal("the coordinator never moved")
		}
		if n := one.rounds() + two.rounds(); n != rounds {
			t.Errorf("%d rounds for %d moves", n-rounds, moved)
		}
		three := w.join()
		pass(50 * time.Millisecond)
		w.RehashCoordinators() // in the middle of a round
		holdFor(t, 10*time.Second, one, two)
		shared(t, 6, one, two, three)
		uninterrupted(t, one, two, three)
	})
}

// What is held counts from when a request was sent, not from its answer.
func TestMembershipCountsFromTheRequest(t *testing.T) {
	bubble(t, "a slow answer", func(t *testing.T) {
		w := groupWorld(t, 1)
		one := w.join()
		pass(time.Second)
		const slow = 2 * time.Second
		w.ControlKey(int16(kmsg.Heartbeat), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			w.SleepControl(func() { <-time.After(slow) })
			return nil, nil, false
		})
		pass(slow + testHeartbeat)
		for range 40 {
			pass(250 * time.Millisecond)
			if left := time.Until(one.HoldsUntil()); left > testSession-testMargin-slow || left <= 0 {
				t.Fatalf("held for %v more", left)
			}
		}
		one.Leave(t.Context())
		pass(2 * slow) // for the broker to wake up
	})
}

// longSession has the coordinator keep members for long, while they themselves
// count on testSession.
func longSession(c *GroupConfig) {
	c.Session, c.Rebalance, c.Margin = 10*testSession, 10*testSession, 9*testSession+testMargin
}

// A member that the coordinator has given up is told what it has lost, and what
// it has again.
func TestMembershipInterrupted(t *testing.T) {
	bubble(t, "nobody else was there", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		id := one.MemberID()
		beats := w.answerBeats()
		var kept, again bool
		one.onAssigned = func(a Assignment) {
			kept = one.Holds()
			again = slices.Equal(a.Regained, []int32{0, 1, 2, 3}) && len(a.Gained)+len(a.Lost) == 0
		}
		beats.Store(int32(kafka.UnknownMemberId))
		pass(testHeartbeat + 10*time.Millisecond)
		beats.Store(0)
		pass(testSession + 3*time.Second) // the broker waits for its former self
		if one.MemberID() == id || kept || !again {
			t.Errorf("the same member: %v, held meanwhile: %v, regained: %v, %+v", one.MemberID() == id, kept, again, one.last())
		}
		one.wants(0, 1, 2, 3)
		if len(one.gaveUpSoFar()) > 0 {
			t.Error("asked to give up what was not held")
		}
	})

	bubble(t, "another comes at the same time", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		beats := w.answerBeats()
		beats.Store(int32(kafka.UnknownMemberId))
		pass(testHeartbeat + 10*time.Millisecond)
		beats.Store(0)
		two := w.join()
		pass(testSession + 3*time.Second) // the broker waits for the former self of one
		shared(t, 4, one, two)
		if a := one.told[1]; !slices.Equal(a.Regained, []int32{0, 1}) || !slices.Equal(a.Lost, []int32{2, 3}) || len(one.gaveUpSoFar()) > 0 {
			t.Errorf("%+v, asked to give up %v", a, one.gaveUpSoFar())
		}
	})

	bubble(t, "a frozen process loses what another has got meanwhile", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		one.cut(true)
		pass(testSession + time.Second)
		two := w.join()
		pass(3 * time.Second)
		two.wants(0, 1, 2, 3)
		if one.Holds() {
			t.Error("held after its session")
		}
		one.cut(false)
		holdFor(t, 5*time.Second, two)
		shared(t, 4, one, two)
		if lost := one.lostOrRegained(); !slices.Equal(lost, []int32{0, 1, 2, 3}) {
			t.Errorf("told of %v", lost)
		}
		uninterrupted(t, two)
	})

	bubble(t, "a session that ends in the middle of Assigned", func(t *testing.T) {
		w := groupWorld(t, 2)
		one := w.peer()
		released := make(chan struct{})
		first := true
		one.onAssigned = func(Assignment) {
			switch {
			case first:
				first = false
				<-released
			case one.Holds():
				t.Error("held before the next Assigned has returned")
			}
		}
		one.join()
		pass(time.Second)
		if one.Holds() {
			t.Error("held before Assigned has returned")
		}
		one.cut(true)
		pass(2 * testSession)
		one.cut(false)
		pass(3 * time.Second)
		close(released)
		if one.Holds() {
			t.Error("held by a membership that is over")
		}
		pass(3 * time.Second)
		one.wants(0, 1)
		if a := one.last(); !slices.Equal(a.Regained, []int32{0, 1}) {
			t.Errorf("%+v", a)
		}
	})

	bubble(t, "a coordinator that comes up says of every heartbeat that it is good", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		one.cut(true)
		pass(testSession + time.Second)
		two := w.join()
		pass(3 * time.Second)
		two.wants(0, 1, 2, 3)
		id := one.MemberID()
		loading := new(atomic.Bool)
		loading.Store(true)
		w.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			mine := r.(*kmsg.HeartbeatRequest).MemberID == id && loading.Load()
			return r.ResponseKind(), nil, mine
		})
		w.ControlKey(int16(kmsg.SyncGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			mine := r.(*kmsg.SyncGroupRequest).MemberID == id && loading.Load()
			answer := r.ResponseKind().(*kmsg.SyncGroupResponse)
			answer.ErrorCode = int16(kafka.GroupLoadInProgress)
			return answer, nil, mine
		})
		one.cut(false)
		for range 50 {
			pass(100 * time.Millisecond)
			if one.Holds() {
				t.Fatal("held what another has")
			}
		}
		loading.Store(false)
		pass(5 * time.Second)
		shared(t, 4, one, two)
	})

	bubble(t, "a generation that the coordinator does not know", func(t *testing.T) {
		w := groupWorld(t, 2)
		one := w.join()
		pass(time.Second)
		id := one.MemberID()
		beats := w.answerBeats()
		beats.Store(int32(kafka.IllegalGeneration))
		pass(testHeartbeat)
		beats.Store(0)
		holdFor(t, 3*time.Second, one)
		if one.MemberID() != id || one.rounds() < 2 {
			t.Errorf("%d rounds, the same member: %v", one.rounds(), one.MemberID() == id)
		}
		uninterrupted(t, one)
	})
}

// A join that never arrives is sent again, and a rebalance that the member takes
// no part in ends what it holds in time.
func TestMembershipJoinsUnheard(t *testing.T) {
	bubble(t, "the first is lost", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		muted := w.mute(kmsg.JoinGroup)
		muted.Store(true)
		one.Rejoin()
		pass(time.Second)
		muted.Store(false)
		holdFor(t, lostJoin+2*testHeartbeat, one) // long before the join's time is over
		if one.rounds() != 2 {
			t.Errorf("%d rounds", one.rounds())
		}
	})

	bubble(t, "by a member that is put out meanwhile", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		id := one.MemberID()
		var anew atomic.Bool
		w.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			join := r.(*kmsg.JoinGroupRequest)
			anew.Store(anew.Load() || join.MemberID == "")
			return nil, nil, join.MemberID == id
		})
		beats := w.answerBeats()
		one.Rejoin()
		pass(100 * time.Millisecond)
		beats.Store(int32(kafka.UnknownMemberId))
		pass(testHeartbeat)
		beats.Store(0)
		if !anew.Load() {
			t.Error("it waits for an answer to its former self")
		}
		pass(testSession + 3*time.Second)
		one.wants(0, 1, 2, 3)
	})

	bubble(t, "none is heard", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(2 * time.Second)
		muted := new(atomic.Bool)
		w.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return nil, nil, muted.Load() && r.(*kmsg.JoinGroupRequest).MemberID == one.MemberID()
		})
		muted.Store(true)
		begun := time.Now()
		two := w.join()
		for one.Holds() {
			pass(10 * time.Millisecond)
		}
		held := time.Since(begun)
		for len(two.last().Owned) == 0 {
			pass(10 * time.Millisecond)
		}
		other := time.Since(begun)
		t.Logf("held for %v, another's after %v", held, other)
		if held < testRebalance-testMargin-2*testHeartbeat || other-held < testMargin-testHeartbeat {
			t.Errorf("held for %v, another's after %v", held, other)
		}
	})
}

// Members of another kind keep ours out, and the log says what to do.
func TestMembershipRefused(t *testing.T) {
	bubble(t, "by members that know range only", func(t *testing.T) {
		w := groupWorld(t, 4)
		other, err := kgo.NewClient(
			kgo.SeedBrokers(w.ListenAddrs()...), kgo.Dialer(w.network.DialContext), kgo.ConsumerGroup(testGroup), kgo.ConsumeTopics(groupTopic),
			kgo.Balancers(kgo.RangeBalancer()))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		pass(5 * time.Second)
		one := w.join()
		pass(3*time.Minute + time.Second)
		if one.rounds() > 0 || one.Holds() {
			t.Error("a member among others of another kind")
		}
		told := one.logs.FilterMessage("consumer group refuses this member").FilterLevelExact(zap.ErrorLevel).All()
		if len(told) < 3 || len(told) > 4 {
			t.Fatalf("told %d times in three minutes", len(told))
		}
		text := fmt.Sprint(told[0].ContextMap()["error"])
		if !strings.Contains(text, `group "workers" has members of another kind`) || !strings.Contains(text, "stop them, or name another group") {
			t.Errorf("told %q", text)
		}
		other.Close()
		pass(5 * time.Second)
		one.wants(0, 1, 2, 3)
	})

	bubble(t, "and keep out members that know range only", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		var refused atomic.Int32
		other, err := kgo.NewClient(
			kgo.SeedBrokers(w.ListenAddrs()...), kgo.Dialer(w.network.DialContext), kgo.ConsumerGroup(testGroup), kgo.ConsumeTopics(groupTopic),
			kgo.Balancers(kgo.RangeBalancer()),
			kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { refused.Add(1) }))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		holdFor(t, 10*time.Second, one)
		if refused.Load() > 0 || one.rounds() != 1 {
			t.Errorf("%d assignments of the other, %d rounds", refused.Load(), one.rounds())
		}
	})
}

// Members whose words cannot be read get nothing, and an assignment that cannot
// be read gives nothing.
func TestMembershipAmongGarbage(t *testing.T) {
	bubble(t, "user data", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		garbage := []byte("not a subscription")
		w.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			if join := r.(*kmsg.JoinGroupRequest); join.MemberID != one.MemberID() {
				join.Protocols[0].Metadata = garbage
			}
			return nil, nil, false
		})
		two := w.join()
		holdFor(t, 5*time.Second, one)
		one.wants(0, 1, 2, 3)
		if len(two.last().Owned) > 0 {
			t.Errorf("%+v", two.last())
		}
		if one.count("member of the consumer group not understood, so it gets no partition") == 0 {
			t.Error("not told")
		}
	})

	bubble(t, "assignments", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		w.ControlKey(int16(kmsg.SyncGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			for i := range r.(*kmsg.SyncGroupRequest).GroupAssignment {
				r.(*kmsg.SyncGroupRequest).GroupAssignment[i].MemberAssignment = []byte("nonsense")
			}
			return nil, nil, false
		})
		one.Rejoin()
		pass(time.Second)
		if a := one.last(); len(a.Owned) > 0 || !slices.Equal(a.Lost, []int32{0, 1, 2, 3}) {
			t.Errorf("%+v", a)
		}
		if one.count("assignment not readable, so this member takes no partition") != 1 {
			t.Error("not told")
		}
	})
}

// Leaving ends in bounded time, wherever the membership is just then.
func TestMembershipLeaves(t *testing.T) {
	for name, key := range map[string]kmsg.Key{
		"in a join": kmsg.JoinGroup, "in a sync": kmsg.SyncGroup, "in a heartbeat": kmsg.Heartbeat,
		"in the leaving": kmsg.LeaveGroup, "looking for the coordinator": kmsg.FindCoordinator, "asking for the topic": kmsg.Metadata,
	} {
		bubble(t, name, func(t *testing.T) {
			w := groupWorld(t, 2)
			w.mute(key).Store(true)
			one := w.join()
			pass(3 * time.Second)
			begun := time.Now()
			one.Leave(t.Context())
			one.Leave(t.Context()) // once more does nothing
			if took := time.Since(begun); took > testLeave {
				t.Errorf("left after %v", took)
			}
			one.client.Close()
			pass(one.patience()) // for what any broker was asked
			if n := one.open.Load(); n > 0 {
				t.Errorf("%d connections stay open", n)
			}
		})
	}

	bubble(t, "with a last commit in the middle of a rebalance", func(t *testing.T) {
		w := groupWorld(t, 4)
		one, two := w.join(), w.join()
		pass(5 * time.Second)
		muted := new(atomic.Bool) // two does not take part for a while
		w.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return nil, nil, muted.Load() && r.(*kmsg.JoinGroupRequest).MemberID == two.MemberID()
		})
		muted.Store(true)
		one.Rejoin()
		pass(2 * time.Second)
		var commits []error
		one.onRevoke = func(ctx context.Context, partitions []int32) {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			for range 10 {
				commits = append(commits, one.Commit(ctx, offsetsOf(partitions, 7)))
				muted.Store(false) // the round that is on its way ends between the commits
				<-time.After(time.Second)
			}
		}
		one.Leave(t.Context())
		if err := errors.Join(commits...); err != nil || len(commits) != 10 {
			t.Errorf("%d commits: %v", len(commits), err)
		}
		pass(5 * time.Second)
		two.wants(0, 1, 2, 3)
		uninterrupted(t, two)
		if err := one.Commit(t.Context(), offsetsOf([]int32{0}, 8)); !errors.Is(err, ErrNotMember) {
			t.Errorf("a commit of one who has left: %v", err)
		}
	})

	bubble(t, "without asking to give up what is not held", func(t *testing.T) {
		w := groupWorld(t, 2)
		one := w.join()
		pass(time.Second)
		one.cut(true)
		pass(testSession)
		one.Leave(t.Context())
		if len(one.gaveUpSoFar()) > 0 {
			t.Errorf("asked to give up %v", one.gaveUpSoFar())
		}
	})
}

// offsetsOf are commits of one offset for some partitions.
func offsetsOf(partitions []int32, at int64) []CommitOffset {
	var offsets []CommitOffset
	for _, p := range partitions {
		offsets = append(offsets, CommitOffset{Partition: p, Offset: at, Metadata: "m"})
	}
	return offsets
}
