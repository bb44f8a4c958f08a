package claims

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// A broker that is away at first, and again later, is waited for, and told of
// once each time.
func TestBrokerAway(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.cut()
		b := r.book(Config{})
		pass(time.Minute)
		b.expect(t, "early", 'a', "not read")
		if warned := b.logs.FilterLevelExact(zap.WarnLevel).Len(); warned != 1 {
			t.Errorf("%d warnings in a minute", warned)
		}
		r.mend()
		pass(10 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		r.cut()
		pass(time.Minute)
		b.expect(t, "t", 'a', "stream s") // it needs nobody
		if _, got := b.ask("u", 'b'); got != "reused" {
			t.Errorf("%s", got)
		}
		r.mend()
		pass(10 * time.Second)
		b.expect(t, "v", 'a', "stream s")
		if warned := b.logs.FilterLevelExact(zap.WarnLevel).Len(); warned != 2 {
			t.Errorf("%d warnings of two outages", warned)
		}
	})
}

// A claim that was written and cannot be read again in time is revoked.
func TestClaimThatCannotBeReadAgain(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		one, two := r.book(Config{}), r.book(Config{})
		pass(5 * time.Second)
		r.cut()
		one.expect(t, "s", 'a', "unwritten")
		r.mend()
		pass(10 * time.Second)
		two.expect(t, "t", 'b', "turn of t") // at once: nobody is waited for
	})
}

// A topic that is deleted and made again is read anew, and what was claimed is gone.
func TestTopicMadeAnew(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		if err := r.DeleteTopic(Topic); err != nil {
			t.Fatal(err)
		}
		r.create(3)
		pass(30 * time.Second)
		if live := b.Live(); live != 0 {
			t.Errorf("%d claims of a topic that is gone", live)
		}
		b.expect(t, "t", 'b', "turn of t").note(t, 2)
		b.expect(t, "u", 'b', "stream t")
	})
}

// Partitions that are added later are read, and what was claimed before stays.
func TestTopicGrows(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.create(1)
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		answer, err := r.writer.API().CreatePartitions(t.Context(), &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: Topic, Count: 5}},
		})
		if err != nil || answer.Errors[Topic] != nil {
			t.Fatal(err, answer)
		}
		pass(15 * time.Second)
		b.expect(t, "t", 'a', "stream s")
		b.expect(t, "u", 'b', "reused")
		pass(2 * window)
		b.expect(t, "v", 'b', "turn of v")
	})
}

// Partitions move between brokers while claims are made.
func TestLeadersMove(t *testing.T) {
	rigged(t, 3, func(t *testing.T, r *rig) {
		r.create(3)
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s")
		for i := range 6 {
			for p := range int32(3) {
				if err := r.MoveTopicPartition(Topic, p, int32(i)%3); err != nil {
					t.Fatal(err)
				}
			}
			pass(15 * time.Second)
			b.expect(t, string(rune('a'+i)), 'a', "turn of s") // nobody notes it
		}
	})
}

// Retention that overtakes a gateway which did not read for long takes only
// what has ended anyhow.
func TestRetentionOvertakes(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.create(1)
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		r.cut()
		pass(2 * window)
		for range 3 {
			r.put(revoke{holder: "nobody"}.record([16]byte{}))
		}
		if err := r.DeleteRecords(Topic, 0, 4); err != nil {
			t.Fatal(err)
		}
		r.mend()
		pass(15 * time.Second)
		b.expect(t, "t", 'b', "turn of t")
		if live := b.Live(); live != 1 {
			t.Errorf("%d claims", live)
		}
	})
}

// A gateway that was frozen beyond the window reads the claims of that time as
// they were decided then: one that lost has not won because the winner has ended since.
func TestFrozenGateway(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		pass(window - time.Minute)
		r.cut()
		late := claim{marks: []Mark{mark('k', 'a')}, stream: stream("late"), until: time.Now().Add(window).UnixMilli(), patience: 1000}
		r.put(late.record())
		pass(5 * time.Minute)
		r.mend()
		pass(10 * time.Second)
		if live := b.Live(); live != 0 {
			t.Errorf("%d live claims", live)
		}
		b.expect(t, "t", 'b', "turn of t")
	})
}

// A log that was cut off is read again from its start.
func TestLogIsCutOff(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		r.create(1)
		b := r.book(Config{})
		pass(5 * time.Second)
		b.expect(t, "s", 'a', "turn of s").note(t, 1)
		// Offsets beyond the end are what a shorter log looks like.
		b.skip(0, 1000)
		pass(15 * time.Second)
		if got := b.next(0); got != 2 {
			t.Errorf("read up to %d, want 2", got)
		}
		b.expect(t, "t", 'a', "stream s")
	})
}

// Without leave to create it, the topic is waited for.
func TestTopicIsNotMade(t *testing.T) {
	rigged(t, 1, func(t *testing.T, r *rig) {
		b := r.closed(Config{})
		b.Start(broker.TopicSpec{Name: Topic, Partitions: 1}, false)
		pass(time.Minute)
		b.expect(t, "early", 'a', "not read")
		r.create(1) // fails if it is there
		pass(10 * time.Second)
		b.expect(t, "s", 'a', "turn of s")
	})
}

// One broker that is away does not keep the others' partitions from being read,
// but until all are read nobody knows what is claimed.
func TestOneBrokerAway(t *testing.T) {
	rigged(t, 3, func(t *testing.T, r *rig) {
		r.create(3)
		for p := range int32(3) {
			if err := r.MoveTopicPartition(Topic, p, p); err != nil {
				t.Fatal(err)
			}
		}
		r.cutOff(func(address string) bool { return strings.HasSuffix(address, ":9094") })
		b := r.book(Config{})
		pass(time.Minute)
		b.expect(t, "early", 'a', "not read")
		var read []bool
		b.mu.Lock()
		for _, p := range b.life.partitions {
			read = append(read, p.read)
		}
		b.mu.Unlock()
		if !slices.Equal(read, []bool{true, true, false}) {
			t.Errorf("read: %t", read)
		}
		r.mend()
		pass(10 * time.Second)
		b.expect(t, "s", 'a', "turn of s")
	})
}
