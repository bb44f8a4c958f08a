//go:build e2e

package hub

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// TestRealKafkaFaults does to a reply topic what operators and workers do.
func TestRealKafkaFaults(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{})
	t.Run("topic made again", func(t *testing.T) { topicMadeAgain(t, cluster) })
	t.Run("topic grows", func(t *testing.T) { topicGrows(t, cluster) })
	t.Run("retention overtakes a reader", func(t *testing.T) { retentionOvertakes(t, cluster) })
	t.Run("worker's clock is ahead", func(t *testing.T) { clockAhead(t, cluster) })
	t.Run("worker aborts", func(t *testing.T) { workerAborts(t, cluster) })
}

// The reply topic is deleted and made again, with fewer partitions, while
// streams are open and tokens are out. Everyone is told, gets what is answered
// afterwards, and ends.
func topicMadeAgain(t *testing.T, cluster *kafkatest.Cluster) {
	r := newKafkaRig(t, cluster, "replies.again", 4, 1, nil)
	r.hub.Start()
	open, out, silent := r.streams(40), r.streams(40), r.streams(20)
	for _, s := range slices.Concat(open, out) {
		r.worker.Produce(r.ctx, r.reply(s, "one", true), nil)
	}
	if err := r.worker.Flush(r.ctx); err != nil {
		t.Fatal(err)
	}
	wait := r.readAll(r.hub, open)

	if _, err := r.admin.DeleteTopic(r.ctx, r.topic); err != nil {
		t.Fatal(err)
	}
	r.make(2, 1, nil)
	var answers []*kgo.Record
	for _, s := range slices.Concat(open, out) {
		answer := r.reply(s, "two", false)
		answer.Partition = record.Partition([]byte(s.ID), 2)
		answers = append(answers, answer)
	}
	r.put(answers...)

	wantStories(t, wait(), "replied: one gap:recreated two")
	wantStories(t, r.readAll(r.hub, out)(), "replied: gap:recreated two")
	// Nobody answers these any more, and they end all the same.
	for i := range silent {
		silent[i].Expires = time.Now().Add(-expiryGrace)
	}
	wantStories(t, r.readAll(r.hub, silent)(), "expired: gap:recreated")
	if now := r.stream(); now.Incarnation == open[0].Incarnation || now.Partitions != 2 {
		t.Errorf("new tokens name %+v", now)
	}
	t.Logf("%d streams open, %d tokens out and %d without an answer: all told, all ended", len(open), len(out), len(silent))
}

// Partitions are added while tokens are out. Workers that place by the stream
// id answer in the new ones, and a stream that was answered in both is whole.
func topicGrows(t *testing.T, cluster *kafkatest.Cluster) {
	r := newKafkaRig(t, cluster, "replies.grow", 2, 1, nil)
	r.hub.Start()
	open, out := r.streams(40), r.streams(40)
	for _, s := range slices.Concat(open, out) {
		r.worker.Produce(r.ctx, r.reply(s, "one", true), nil)
	}
	if err := r.worker.Flush(r.ctx); err != nil {
		t.Fatal(err)
	}
	wait := r.readAll(r.hub, open)

	if answer, err := r.admin.UpdatePartitions(r.ctx, 7, r.topic); err != nil || answer.Error() != nil {
		t.Fatal(err, answer.Error())
	}
	r.led(7)
	worker, moved := r.newWorker(), 0 // it places by murmur2
	for _, s := range slices.Concat(open, out) {
		answer := r.reply(s, "two", false)
		if err := worker.ProduceSync(r.ctx, answer).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if answer.Partition != record.Partition([]byte(s.ID), 7) {
			t.Fatalf("the worker has answered on partition %d", answer.Partition)
		}
		if answer.Partition != s.Partition {
			moved++
		}
	}
	wantStories(t, wait(), "replied: one two")
	wantStories(t, r.readAll(r.newHub(Config{}), out)(), "replied: one two")
	if moved == 0 {
		t.Error("no answer came on another partition than the token names")
	}
	t.Logf("%d streams, %d answers on another partition than their tokens name: all there", len(open)+len(out), moved)
}

// Records are deleted under a reader that is in the middle of them. It is told
// from where to where, and gets the rest once.
func retentionOvertakes(t *testing.T, cluster *kafkatest.Cluster) {
	const replies, read, start, room = 600, 10, 400, 20_000
	r := newKafkaRig(t, cluster, "replies.retention", 1, 1, nil)
	s := r.stream0()
	var answers []*kgo.Record
	for i := range replies {
		answers = append(answers, r.reply(s, fmt.Sprint(i), i < replies-1))
	}
	r.put(answers...)
	h := r.newHub(Config{WindowBytes: room})
	sub := h.Follow(s, nil)
	t.Cleanup(sub.Close)
	var told story
	for range read {
		e, err := sub.Next(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		told.add(e)
	}
	r.until("most of what a scan had put aside is dropped", func() error {
		if held := h.Stats().WindowBytes; held > room {
			return fmt.Errorf("%d bytes held", held)
		}
		return nil
	})
	var before kadm.Offsets
	before.AddOffset(r.topic, 0, start, -1)
	if answer, err := r.admin.DeleteRecords(r.ctx, before); err != nil || answer.Error() != nil {
		t.Fatal(err, answer.Error())
	}
	rest := r.read(sub, func() {})

	// What still lay aside is told, then the gap, and the rest.
	all := append(slices.Clone(told.told), rest.told...)
	gap := slices.Index(all, "gap:"+gapRetention)
	if rest.end != record.StateReplied || rest.err != nil || len(rest.gaps) != 1 || len(all) != gap+1+replies-start {
		t.Fatalf("%s: %d events, %v", rest, len(all), rest.gaps)
	}
	for i, body := range slices.Delete(slices.Clone(all), gap, gap+1) {
		want := i
		if i >= gap {
			want = start + i - gap
		}
		if body != fmt.Sprint(want) {
			t.Fatalf("reply %s instead of %d", body, want)
		}
	}
	between := func(from, to int64) record.Gap {
		at := Cursor{Incarnation: s.Incarnation, Offset: from}
		end := at
		end.Offset = to
		return record.Gap{From: at.String(), To: end.String(), Reason: gapRetention}
	}
	if want := between(int64(gap), start); rest.gaps[0] != want {
		t.Errorf("%+v, want %+v", rest.gaps[0], want)
	}

	// So is one that comes later, for a stream whose end is not there.
	open := r.stream0()
	open.Floor = 3
	late := r.hub.Follow(open, nil)
	t.Cleanup(late.Close)
	e, err := late.Next(r.ctx)
	if want := between(3, start); err != nil || e.Kind != KindGap || e.Gap != want {
		t.Errorf("%+v %v, want %+v", e, err, want)
	}
	t.Logf("%d replies, %d of them deleted under a reader that had read %d; %d more lay aside: gap %s to %s, and %d after it",
		replies, start, read, gap-read, rest.gaps[0].From, rest.gaps[0].To, replies-start)
}

// stream0 gives a stream from the log's start, without a hub that was started.
func (r *kafkaRig) stream0() Stream {
	r.t.Helper()
	is, err := r.client.Topic(r.ctx, r.topic)
	if err != nil {
		r.t.Fatal(err)
	}
	return Stream{
		ID: record.NewID(0, is.Partitions()), Topic: r.topic, Partitions: is.Partitions(), Incarnation: is.ID.Incarnation(),
		Issued: time.Now(), Expires: time.Now().Add(time.Hour),
	}
}

// An exactly-once worker aborts every other transaction. What it has answered
// in those is seen by nobody, live or later.
func workerAborts(t *testing.T, cluster *kafkatest.Cluster) {
	const batches, size = 12, 10
	r := newKafkaRig(t, cluster, "replies.transactions", 2, 1, nil)
	r.hub.Start()
	streams := r.streams(batches * size)
	wait := r.readAll(r.hub, streams)
	worker := r.newWorker(kgo.TransactionalID("worker"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	aborted := 0
	for batch := range batches {
		of := streams[batch*size:][:size]
		for try := range 2 {
			if err := worker.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			var answers []*kgo.Record
			for _, s := range of {
				answers = append(answers, r.reply(s, fmt.Sprintf("part%d", try), true), r.reply(s, fmt.Sprintf("end%d", try), false))
			}
			if err := worker.ProduceSync(r.ctx, answers...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			how := kgo.TryAbort
			if try == 1 {
				how = kgo.TryCommit
			} else {
				aborted += len(answers)
			}
			if err := worker.EndTransaction(r.ctx, how); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantStories(t, wait(), "replied: part1 end1")
	wantStories(t, r.readAll(r.newHub(Config{}), streams)(), "replied: part1 end1")
	t.Logf("%d streams, %d aborted replies seen by none of %d readers", len(streams), aborted, 2*len(streams))
}

// TestRealKafkaLosesBrokers needs three of them.
func TestRealKafkaLosesBrokers(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Start(t, kafkatest.Options{Brokers: 3})
	t.Run("leaders move", func(t *testing.T) { leadersMove(t, cluster) })
	t.Run("log is cut off and grows again", func(t *testing.T) { logCutOff(t, cluster) })
}

// Leaders move, and one of them dies, in the middle of many streams: every one
// gets every reply once and in order.
func leadersMove(t *testing.T, cluster *kafkatest.Cluster) {
	const streams, replies, partitions = 300, 12, 3
	r := newKafkaRig(t, cluster, "replies.move", partitions, 3, nil)
	r.hub.Start()
	all := r.streams(streams)
	wait := r.readAll(r.hub, all)
	var want []string
	for i := range replies {
		var answers []*kgo.Record
		for _, s := range all {
			answers = append(answers, r.reply(s, fmt.Sprint(i), i < replies-1))
		}
		switch i {
		case 4, 5, 6, 7: // in turn, each partition goes to another broker
			to := int32(i+1)%3 + 1
			r.lead(int32(i%partitions), to, to%3+1, (to+1)%3+1)
		case 8:
			cluster.Kill(0)
		case 10:
			cluster.Restart(0)
		}
		r.put(answers...)
		want = append(want, fmt.Sprint(i))
	}
	text := "replied: " + strings.Join(want, " ")
	wantStories(t, wait(), text)
	wantStories(t, r.readAll(r.newHub(Config{}), all)(), text)
	t.Logf("%d streams with %d replies each over 4 moves, a crash and a return: %d replies, each once to each of 2 readers", streams, replies, streams*replies)
}

// lead has a partition kept by the given brokers, and led by the first.
func (r *kafkaRig) lead(partition int32, by ...int32) {
	r.t.Helper()
	r.until("give a partition to other brokers", func() error {
		var to kadm.AlterPartitionAssignmentsReq
		to.Assign(r.topic, partition, by)
		answer, err := r.admin.AlterPartitionAssignments(r.ctx, to)
		return errors.Join(err, answer.Error())
	})
	r.until("move a leader", func() error {
		var s kadm.TopicsSet
		s.Add(r.topic, partition)
		if _, err := r.admin.ElectLeaders(r.ctx, kadm.ElectPreferredReplica, s); err != nil {
			return err
		}
		return r.partition(partition, func(p kadm.PartitionDetail) bool {
			return p.Leader == by[0] && len(p.Replicas) == len(by) && len(p.ISR) == len(by)
		})
	})
}

// partition asks whether something is so of a partition.
func (r *kafkaRig) partition(index int32, so func(kadm.PartitionDetail) bool) error {
	all, err := r.admin.ListTopics(r.ctx, r.topic)
	if err != nil {
		return err
	}
	p, ok := all[r.topic].Partitions[index]
	if !ok {
		return errors.New("no such partition")
	}
	if !so(p) {
		return fmt.Errorf("%+v", p)
	}
	return nil
}

// A leader dies with records that no other broker has, and one without them is
// elected. Before the hub can look, the log is longer again than what it has
// read: nothing but the epochs tells.
func logCutOff(t *testing.T, cluster *kafkatest.Cluster) {
	yes, one := "true", "1"
	r := newKafkaRig(t, cluster, "replies.cut", 1, 3, map[string]*string{"unclean.leader.election.enable": &yes, "min.insync.replicas": &one})
	const last, other = 2, 3
	r.lead(0, last, other)
	s := r.stream0()
	sub := r.hub.Follow(s, nil)
	t.Cleanup(sub.Close)
	var told story
	read := func(n int) {
		t.Helper()
		for len(told.told) < n {
			e, err := sub.Next(r.ctx)
			if err != nil {
				t.Fatal(err)
			}
			told.add(e)
		}
	}
	r.put(r.reply(s, "kept", true), r.reply(s, "kept", true))
	read(2)
	cluster.Kill(other - 1)
	r.until("miss a copy", func() error {
		return r.partition(0, func(p kadm.PartitionDetail) bool { return len(p.ISR) == 1 })
	})
	r.put(r.reply(s, "lost", true), r.reply(s, "lost", true))
	read(4)

	r.cutOff(true)
	cluster.Kill(last - 1)
	cluster.Restart(other - 1)
	r.until("elect who does not know", func() error {
		return r.partition(0, func(p kadm.PartitionDetail) bool { return p.Leader == other })
	})
	r.put(r.reply(s, "new", true), r.reply(s, "new", true), r.reply(s, "new", true), r.reply(s, "newest", false))
	r.cutOff(false)
	rest := r.read(sub, func() {})
	if got, want := rest.String(), "replied: gap:truncated kept kept new new new newest <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	cluster.Restart(last - 1)
	t.Logf("2 replies kept, 2 lost, 4 written in their place: %s", rest)
}
