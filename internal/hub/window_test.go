package hub

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// TestWindowAgainstAList compares a window with a plain list under random
// additions, evictions and lookups.
func TestWindowAgainstAList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var w window
	w.reset(100)
	var list []*Entry
	offset := int64(100)
	for range 5000 {
		switch random.IntN(2 + len(list)/100) {
		case 0:
			offset += random.Int64N(3)
			e := &Entry{Cursor: Cursor{Offset: offset}, Reply: record.Reply{StreamID: fmt.Sprint(random.IntN(5))}, cost: 1 + random.Int64N(9)}
			offset++
			w.add(e)
			list = append(list, e)
		default:
			freed := w.evict()
			if len(list) == 0 {
				if freed != 0 {
					t.Fatal("an empty window freed something")
				}
				continue
			}
			if freed != list[0].cost || w.start != list[0].Cursor.Offset+1 {
				t.Fatalf("freed %d, start %d after %v", freed, w.start, list[0].Cursor)
			}
			list = list[1:]
		}
		var bytes int64
		for _, e := range list {
			bytes += e.cost
		}
		if w.bytes != bytes || w.next != offset {
			t.Fatalf("%d bytes up to %d instead of %d up to %d", w.bytes, w.next, bytes, offset)
		}
		id, from := fmt.Sprint(random.IntN(5)), w.start+random.Int64N(w.next-w.start+2)
		var want *Entry
		for _, e := range list {
			if e.Reply.StreamID == id && e.Cursor.Offset >= from {
				want = e
				break
			}
		}
		if got := w.find(id, from); got != want {
			t.Fatalf("found %v instead of %v", got, want)
		}
	}
	for w.evict() > 0 {
	}
	if len(w.byStream) != 0 || w.bytes != 0 {
		t.Errorf("an empty window still holds %d streams and %d bytes", len(w.byStream), w.bytes)
	}
}
