package broker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMembershipCommit(t *testing.T) {
	bubble(t, "and what was committed", func(t *testing.T) {
		w := groupWorld(t, 3)
		one := w.join()
		pass(time.Second)
		if got, err := one.Committed(t.Context(), []int32{0, 2}); err != nil || len(got) != 2 || got[0].Offset != -1 || got[2].Offset != -1 {
			t.Fatalf("%v, %v", got, err)
		}
		long := strings.Repeat("x", 40_000) // beyond a signed 16 bits, which the fake broker takes
		err := one.Commit(t.Context(), []CommitOffset{{Partition: 0, Offset: 5, Metadata: "some"}, {Partition: 1, Offset: 0, Metadata: ""}, {Partition: 2, Offset: 7, Metadata: long}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := one.Committed(t.Context(), []int32{0, 1, 2})
		if err != nil || got[0] != (CommitOffset{Partition: 0, Offset: 5, Metadata: "some"}) || got[1] != (CommitOffset{Partition: 1, Offset: 0, Metadata: ""}) || got[2] != (CommitOffset{Partition: 2, Offset: 7, Metadata: long}) {
			t.Fatalf("%v, %v", len(got), err)
		}
	})

	bubble(t, "in Assigned and in Revoke", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.peer()
		var errs []error
		one.onAssigned = func(a Assignment) {
			errs = append(errs, one.Commit(t.Context(), offsetsOf(a.Owned, 1)))
		}
		one.onRevoke = func(ctx context.Context, partitions []int32) {
			if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > 5*time.Second {
				t.Errorf("a bound of %v", time.Until(deadline))
			}
			errs = append(errs, one.Commit(ctx, offsetsOf(partitions, 2)))
		}
		one.join()
		pass(time.Second)
		w.join()
		holdFor(t, 3*time.Second, one)
		if err := errors.Join(errs...); err != nil || len(errs) < 3 {
			t.Fatalf("%d commits, %v", len(errs), err)
		}
		if err := one.Commit(t.Context(), offsetsOf(one.gaveUpSoFar(), 3)); !errors.Is(err, ErrNotMember) {
			t.Errorf("a commit of what was given up: %v", err)
		}
	})

	bubble(t, "during rebalances", func(t *testing.T) {
		w := groupWorld(t, 6)
		one := w.join()
		pass(time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		var committing sync.WaitGroup
		commits := 0
		committing.Go(func() {
			for ctx.Err() == nil {
				bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				if err := one.Commit(bounded, offsetsOf(one.last().Owned[:1], int64(commits))); err != nil {
					t.Error(err)
				}
				cancel()
				commits++
				<-time.After(5 * time.Millisecond)
			}
		})
		var others []*peer
		for i := range 4 {
			others = append(others, w.join())
			holdFor(t, time.Second, one)
			if i%2 == 1 {
				others[i-1].Leave(t.Context())
			}
			one.Rejoin()
			holdFor(t, 2*time.Second, one)
		}
		cancel()
		committing.Wait()
		if one.rounds() < 8 || commits < 1000 {
			t.Errorf("%d commits in %d rounds", commits, one.rounds())
		}
	})

	bubble(t, "of an earlier time", func(t *testing.T) {
		w := groupWorld(t, 4)
		one := w.join()
		pass(time.Second)
		first := one.last().Tenure
		commit := func(tenure uint64) error {
			return one.Commit(t.Context(), []CommitOffset{{Partition: 3, Offset: 7, Tenure: tenure}})
		}
		if err := commit(first); err != nil {
			t.Fatal(err)
		}
		other := w.join() // gets two of them
		pass(time.Second)
		if err := commit(first); !errors.Is(err, ErrNotMember) {
			t.Errorf("of a partition that was given up: %v", err)
		}
		other.Leave(t.Context())
		pass(3 * time.Second)
		if err := commit(first); !errors.Is(err, ErrNotMember) {
			t.Errorf("of one that was another's in between: %v", err)
		}
		if err := commit(one.last().Tenure); err != nil {
			t.Error(err)
		}
	})

	bubble(t, "refused for a rebalance until the time is over", func(t *testing.T) {
		w := groupWorld(t, 1)
		one := w.join()
		pass(time.Second)
		asked := 0
		w.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			asked++
			return commitAnswer(r, kafka.RebalanceInProgress), nil, true
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		err := one.Commit(ctx, offsetsOf([]int32{0}, 1))
		if !errors.Is(err, kafka.RebalanceInProgress) || time.Since(begun) != 2*time.Second || asked < 10 {
			t.Errorf("%v after %v, asked %d times", err, time.Since(begun), asked)
		}
	})

	for name, code := range map[string]kafka.Error{"metadata too large": kafka.OffsetMetadataTooLarge, "the topic is gone": kafka.UnknownTopicOrPartition} {
		bubble(t, name, func(t *testing.T) {
			w := groupWorld(t, 2)
			one := w.join()
			pass(time.Second)
			asked := 0
			w.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
				w.KeepControl()
				asked++
				return commitAnswer(r, code), nil, true
			})
			err := one.Commit(t.Context(), offsetsOf([]int32{0, 1}, 1))
			if !errors.Is(err, code) || !strings.Contains(err.Error(), "partition 1") || asked != 1 {
				t.Errorf("%v, asked %d times", err, asked)
			}
		})
	}

	bubble(t, "by one who was put out", func(t *testing.T) {
		w := newWorld(t)
		one := w.join()
		pass(time.Second)
		if err := one.Commit(t.Context(), offsetsOf([]int32{0}, 1)); !errors.Is(err, ErrNotMember) {
			t.Errorf("before it has joined: %v", err)
		}
		w.make(groupTopic, 2, nil)
		pass(3 * time.Second)
		w.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			return commitAnswer(r, kafka.UnknownMemberId), nil, true
		})
		if err := one.Commit(t.Context(), offsetsOf([]int32{0}, 1)); !errors.Is(err, ErrNotMember) || one.Holds() {
			t.Errorf("%v, held: %v", err, one.Holds())
		}
		if err := one.Commit(t.Context(), offsetsOf([]int32{0}, 1)); !errors.Is(err, ErrNotMember) {
			t.Errorf("meanwhile: %v", err)
		}
		pass(testSession + 3*time.Second)
		if err := one.Commit(t.Context(), offsetsOf([]int32{0}, 1)); err != nil {
			t.Errorf("after it has joined again: %v", err)
		}
	})

	bubble(t, "by one whom the group has forgotten", func(t *testing.T) {
		w := groupWorld(t, 1)
		one := w.join(func(c *GroupConfig) { c.Heartbeat = 3 * time.Second })
		pass(time.Second)
		w.answerBeats().Store(int32(kafka.UnknownMemberId))
		w.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			return commitAnswer(r, kafka.IllegalGeneration), nil, true
		})
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := one.Commit(ctx, offsetsOf([]int32{0}, 1)); !errors.Is(err, ErrNotMember) || time.Since(begun) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})

	bubble(t, "one partition that cannot be told", func(t *testing.T) {
		w := groupWorld(t, 3)
		one := w.join()
		pass(time.Second)
		if err := one.Commit(t.Context(), offsetsOf([]int32{0, 1, 2}, 4)); err != nil {
			t.Fatal(err)
		}
		w.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Topic: groupTopic, Partitions: []int32{1}})
		got, err := one.Committed(t.Context(), []int32{0, 1, 2})
		if _, ok := got[1]; ok || err == nil || !strings.Contains(err.Error(), "partition 1") || got[0].Offset != 4 || got[2].Offset != 4 {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// commitAnswer answers all partitions of a commit alike.
func commitAnswer(r kmsg.Request, code kafka.Error) kmsg.Response {
	answer := r.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range r.(*kmsg.OffsetCommitRequest).Topics {
		told := kmsg.OffsetCommitResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			told.Partitions = append(told.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(code)})
		}
		answer.Topics = append(answer.Topics, told)
	}
	return answer
}
