package hub

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// What the windows are said to hold is what they take of the heap, whatever
// workers send and however it grows on its way to the client.
func TestWindowCountsWhatItTakes(t *testing.T) {
	headers := func(n int, value string) []record.Header {
		list := []record.Header{{Key: record.HeaderCorrelationID, Value: []byte("a")}}
		for i := range n {
			list = append(list, record.Header{Key: fmt.Sprintf("h%x", i), Value: []byte(value)})
		}
		return list
	}
	for name, c := range map[string]struct {
		rec   record.Record
		times int // as long as its encoded form is
	}{
		"small bodies":             {record.Record{Headers: headers(0, ""), Value: []byte("token ")}, 0},
		"many empty fields":        {record.Record{Headers: headers(record.MaxReplyFields, "")}, 0},
		"many short fields":        {record.Record{Headers: headers(record.MaxReplyFields, "xyz")}, 0},
		"one field of many values": {record.Record{Headers: append(headers(0, ""), slices.Repeat([]record.Header{{Key: "set-cookie", Value: []byte("a")}}, 900)...)}, 0},
		"lines":                    {record.Record{Headers: headers(1, "x"), Value: bytes.Repeat([]byte("\n"), 20_000)}, 7},
		"control characters":       {record.Record{Headers: headers(1, "x"), Value: bytes.Repeat([]byte{1}, 20_000)}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			h, p := lonePartition(t)
			h.config.WindowBytes = 1 << 40
			before := heap()
			for h.windowBytes.Load() < 8<<20 {
				from, _ := p.position(time.Now())
				f := answer(from.offset, record.Reply{})
				f.Records[0].Record = c.rec
				p.take(from, f, h.tick())
				e := p.window.entries[len(p.window.entries)-1]
				if c.times > 0 {
					e.Encoded(FormatSSE, func(e *Entry) []byte { return make([]byte, c.times*len(e.Reply.Body)) })
				}
			}
			took, counted := heap()-before, h.windowBytes.Load()
			t.Logf("%d bytes of the heap counted as %d", took, counted)
			if took > counted*5/4 || took < counted/4 {
				t.Errorf("%d bytes of the heap counted as %d", took, counted)
			}
			h.config.WindowBytes = 0
			h.evict()
			if n := h.windowBytes.Load(); n != 0 {
				t.Errorf("%d bytes in no window", n)
			}
		})
	}
}

// heap gives the bytes in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first has only made ready to be freed
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// An encoded form is charged once, while the entry is there, and drives out what
// has no room any more.
func TestEncodedFormsCount(t *testing.T) {
	h, p := lonePartition(t)
	h.config.WindowBytes = 20_000
	var entries []*Entry
	for range 3 {
		from, _ := p.position(time.Now())
		p.take(from, answer(from.offset, part("a", "x")), h.tick())
		entries = append(entries, p.window.entries[len(p.window.entries)-1])
	}
	encode := func(*Entry) []byte { return make([]byte, 10_000) }
	before := h.windowBytes.Load()
	for range 2 {
		entries[2].Encoded(FormatSSE, encode)
	}
	if grown := h.windowBytes.Load() - before; grown < 10_000 || grown > 12_000 {
		t.Errorf("grown by %d bytes", grown)
	}
	if held := p.held(); held != h.windowBytes.Load() {
		t.Errorf("%d bytes in the window, %d counted", held, h.windowBytes.Load())
	}
	entries[1].Encoded(FormatSSE, encode)
	if len(p.window.entries) != 1 || p.window.entries[0] != entries[2] {
		t.Errorf("%d entries left", len(p.window.entries))
	}
	left := h.windowBytes.Load()
	entries[0].Encoded(FormatCloudEvent, encode)
	if n := h.windowBytes.Load(); n != left {
		t.Errorf("an entry that is not held any more is charged with %d bytes", n-left)
	}
	if e := p.entry(broker.Record{Record: part("a", "x").Record()}); e.tally != nil {
		t.Error("an entry is charged before it is held")
	}
}
