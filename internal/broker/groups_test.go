package broker

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// The commits of many groups come from their coordinators, from old brokers too,
// and that there is none is told.
func TestCommitsOfManyGroups(t *testing.T) {
	for name, options := range map[string][]kfake.Opt{
		"a new broker":                         {kfake.NumBrokers(3), brokers(3)},
		"one that takes one group at a time":   {kfake.NumBrokers(3), brokers(3), kfake.MaxVersions(kversion.V2_4_0())},
		"one that wants the topics by ids too": {kfake.NumBrokers(3), brokers(3), kfake.MaxVersions(kversion.Tip())},
	} {
		bubble(t, name, func(t *testing.T) {
			w := newWorld(t, options...)
			w.make("orders", 2, nil)
			admin := kadm.NewClient(w.writer())
			var groups []string
			want := make(map[string]int64)
			for i := range int64(6) {
				group := fmt.Sprint("group ", i)
				groups = append(groups, group)
				var o kadm.Offsets
				o.Add(kadm.Offset{Topic: "orders", Partition: 1, At: i, LeaderEpoch: -1, Metadata: group})
				if err := admin.CommitAllOffsets(t.Context(), group, o); err != nil {
					t.Fatal(err)
				}
				want[group+"/0"], want[group+"/1"] = -1, i
			}
			groups = append(groups, "never seen")
			want["never seen/0"], want["never seen/1"] = -1, -1
			found, err := w.Coordinators(t.Context(), groups)
			if err != nil || len(found) != len(groups) {
				t.Fatal(found, err)
			}
			asked := make(map[int32][]GroupTopics)
			for group, coordinator := range found {
				asked[coordinator] = append(asked[coordinator], GroupTopics{group, []TopicPartitions{{"orders", []int32{0, 1}}}})
			}
			got := make(map[string]int64)
			for coordinator, of := range asked {
				w.Commits(t.Context(), coordinator, of, func(c Committed) {
					got[fmt.Sprintf("%s/%d", c.Group, c.Partition)] = c.Offset
					if c.Offset >= 0 && c.Metadata != c.Group {
						t.Errorf("%+v", c)
					}
				}, func(group string, err error) { t.Errorf("%s: %v", group, err) })
				for _, g := range w.Groups(t.Context(), coordinator, []string{of[0].Group}) {
					if g.Err != nil || g.Group != of[0].Group || len(g.Members) > 0 || g.Stable {
						t.Errorf("%+v", g)
					}
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			// Another broker does not tell, and that is not that there is none.
			wrong := (found[groups[0]] + 1) % 3
			failed := false
			w.Commits(t.Context(), wrong, []GroupTopics{{groups[0], []TopicPartitions{{"orders", []int32{1}}}}},
				func(c Committed) { t.Errorf("%+v", c) }, func(string, error) { failed = true })
			if !failed {
				t.Error("who is not the coordinator did not fail")
			}
		})
	}
}

// Many topics are answered in the order of the question, and one that is missing too.
func TestTopics(t *testing.T) {
	bubble(t, "some are missing", func(t *testing.T) {
		w := newWorld(t)
		b, a := w.make("b", 2, nil), w.make("a", 1, nil)
		got, err := w.Topics(t.Context(), []string{"b", "none", "a"})
		if err != nil || len(got) != 3 {
			t.Fatal(got, err)
		}
		wantError(t, got[1].Err, kafka.UnknownTopicOrPartition)
		if got[0].ID != b.ID || got[2].ID != a.ID || got[0].Partitions() != 2 || got[1].Name != "none" {
			t.Fatalf("%+v", got)
		}
	})
}

// Who waits for records is told at once, and not of what is there already.
func TestArrivals(t *testing.T) {
	bubble(t, "a record comes", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 3, nil)
		writer := w.writer()
		w.write(writer, "orders", 1, "a")
		var from []FetchFrom
		for p := range int32(3) {
			from = append(from, FetchFrom{Topic: "orders", ID: topic.ID, Partition: p, Offset: []int64{0, 1, 0}[p]})
		}
		got, err := w.Arrivals(t.Context(), one, from, time.Second)
		if err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
		go func() { pass(300 * time.Millisecond); w.write(writer, "orders", 1, "b") }()
		began := time.Now()
		got, err = w.Arrivals(t.Context(), one, from, time.Minute)
		if err != nil || len(got) != 1 || got[0].From != from[1] || got[0].End != 2 || !got[0].Records {
			t.Fatal(got, err)
		}
		if took := time.Since(began); took > time.Second {
			t.Fatalf("it took %s", took)
		}
		at, err := w.TimeAt(t.Context(), one, from[1])
		if err != nil || time.Since(at).Abs() > time.Second {
			t.Fatal(at, err)
		}
		if _, err = w.TimeAt(t.Context(), one, from[2]); err == nil {
			t.Fatal("the time of a record that is not there")
		}
		from[0].ID[0]++
		from = slices.Delete(from, 1, 3)
		if got, err = w.Arrivals(t.Context(), one, from, time.Second); err != nil || len(got) != 1 || got[0].Err == nil {
			t.Fatal(got, err)
		}
	})
}

// FuzzAssigned feeds it what members of foreign programs may have been given.
func FuzzAssigned(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 1, 'a', 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0x7f, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, bytes []byte) {
		for _, a := range assigned(bytes) {
			if len(a.Topic)+4*len(a.Partitions) > len(bytes) {
				t.Fatalf("%d bytes gave %+v", len(bytes), a)
			}
		}
	})
}

// FuzzHasRecords feeds it broken batches, and whole ones.
func FuzzHasRecords(f *testing.F) {
	now := time.UnixMilli(1)
	f.Add(batch(0, now, now, "a"), int64(1))
	f.Add(batch(1<<5, now, now, "a"), int64(1))
	f.Add(batch(1<<5, now, now, "a"), int64(2))
	f.Fuzz(func(t *testing.T, batches []byte, end int64) {
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches, p.HighWatermark = batches, end
		_ = hasRecords(&p)
	})
}

// Markers of transactions alone are no records.
func TestHasRecords(t *testing.T) {
	const control = 1 << 5
	now := time.UnixMilli(1)
	marker, rec := batch(control, now, now, "a"), batch(0, now, now, "a")
	for name, tt := range map[string]struct {
		batches []byte
		end     int64
		want    bool
	}{
		"a marker":                   {marker, 1, false},
		"a marker, and more unseen":  {marker, 2, true},
		"a record":                   {rec, 1, true},
		"a marker and a record":      {slices.Concat(marker, rec), 1, true},
		"a record that is not whole": {rec[:len(rec)-1], 1, true},
		"nothing that can be read":   {nil, 1, true},
	} {
		p := kmsg.NewFetchResponseTopicPartition()
		p.RecordBatches, p.HighWatermark = tt.batches, tt.end
		if got := hasRecords(&p); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
