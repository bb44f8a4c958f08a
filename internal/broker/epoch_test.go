package broker

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// batchOf encodes a batch without records, as compaction or a transaction leaves
// them: it covers the offsets from base to last.
func batchOf(epoch int32, base, last int64) []byte {
	b := kmsg.RecordBatch{PartitionLeaderEpoch: epoch, FirstOffset: base, LastOffsetDelta: int32(last - base), Magic: 2, Length: 49}
	return b.AppendTo(nil)
}

func TestLastEpoch(t *testing.T) {
	three := append(append(batchOf(4, 0, 9), batchOf(4, 10, 10)...), batchOf(7, 11, 20)...)
	old := batchOf(0, 0, 5)
	old[16] = 1
	for name, c := range map[string]struct {
		batches []byte
		next    int64
		want    int32
	}{
		"of the last batch":                         {three, 21, 7},
		"of the last batch that was read":           {three, 11, 4},
		"of no batch, so as before":                 {three, 5, 2},
		"of nothing, so as before":                  {nil, 5, 2},
		"of the last whole batch":                   {three[:len(three)-1], 11, 4},
		"of a batch before magic 2, which has none": {old, 6, -1},
		"of a batch whose length is not its own":    {[]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01abcdefghijklmnopq"), 6, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lastEpoch(epochOf(2), c.batches, c.next); got.wire() != c.want {
				t.Errorf("%d, want %d", got.wire(), c.want)
			}
		})
	}
}

// TestCut takes what brokers say of a reader that has read under epoch 5.
func TestCut(t *testing.T) {
	for name, c := range map[string]struct {
		epoch int32
		end   int64
		want  int64
	}{
		"nothing":                        {-1, -1, -1},
		"that this epoch ends earlier":   {5, 100, 100},
		"that it has nothing of it":      {4, 100, 0},
		"that it has no earlier one too": {-1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := kmsg.NewFetchResponseTopicPartition()
			p.DivergingEpoch.Epoch, p.DivergingEpoch.EndOffset = c.epoch, c.end
			f := Fetched{Next: 120}
			f.heed(epochOf(5), &p)
			var cut *CutError
			if is := errors.As(f.Err, &cut); is != (c.want >= 0) || is && cut.At != c.want {
				t.Errorf("%v, want a cut at %d", f.Err, c.want)
			}
			if f.Epoch.wire() != 5 {
				t.Errorf("epoch %d", f.Epoch.wire())
			}
		})
	}
	t.Run("with an error of its own", func(t *testing.T) {
		p, other := kmsg.NewFetchResponseTopicPartition(), errors.New("other")
		p.DivergingEpoch.EndOffset = 3
		f := Fetched{Err: other}
		f.heed(epochOf(5), &p)
		if !errors.Is(f.Err, other) {
			t.Error(f.Err)
		}
	})
}

// Epochs go to the broker, and the zero value says that there is none.
func TestEpochOnTheWire(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		w := newWorld(t)
		topic := w.make("orders", 1, nil)
		w.write(w.writer(), "orders", 0, "a", "b")
		var asked []int32
		w.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.KeepControl()
			asked = append(asked, r.(*kmsg.FetchRequest).Topics[0].Partitions[0].LastFetchedEpoch)
			return nil, nil, false
		})
		var after Epoch
		for offset := range int64(2) {
			got, err := w.Fetch(t.Context(), FetchRequest{Leader: topic.Leaders[0], MaxBytes: 1, From: []FetchFrom{
				{Topic: "orders", ID: topic.ID, Offset: offset, After: after},
			}})
			if err != nil || got[0].Err != nil {
				t.Fatal(err, got)
			}
			after = got[0].Epoch
		}
		if len(asked) != 2 || asked[0] != -1 || asked[1] < 0 {
			t.Errorf("%v", asked)
		}
	})
}

// FuzzLastEpoch reads whatever a broker may send.
func FuzzLastEpoch(f *testing.F) {
	f.Add(append(batchOf(4, 0, 9), batchOf(7, 10, 20)...), int64(15))
	f.Add([]byte{}, int64(0))
	f.Fuzz(func(t *testing.T, batches []byte, next int64) {
		if e := lastEpoch(epochOf(2), batches, next); e.wire() < -1 {
			t.Errorf("%d", e.wire())
		}
	})
}
