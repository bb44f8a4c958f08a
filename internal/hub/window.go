package hub

import "sort"

// window holds the latest records of a partition, in the order of the log, and
// finds those of one stream. It has seen every offset from start up to, not
// including, next; offsets without an entry hold nothing that a stream could
// want. It is not safe for concurrent use: its partition's lock guards it.
type window struct {
	start, next int64
	bytes       int64

	entries  []*Entry
	byStream map[string][]*Entry
}

// reset empties the window and lets it begin at an offset.
func (w *window) reset(at int64) {
	for _, e := range w.entries {
		e.tally = nil
	}
	*w = window{start: at, next: at, byStream: make(map[string][]*Entry)}
}

// add appends an entry, whose offset is at least next.
func (w *window) add(e *Entry) {
	w.entries = append(w.entries, e)
	w.byStream[e.Reply.StreamID] = append(w.byStream[e.Reply.StreamID], e)
	w.next = e.Cursor.Offset + 1
	w.bytes += e.size()
	e.tally = &w.bytes
}

// evict drops the oldest entry and gives what it held, 0 if there was none.
func (w *window) evict() int64 {
	if len(w.entries) == 0 {
		return 0
	}
	e := w.entries[0]
	w.entries[0] = nil
	w.entries = w.entries[1:]
	w.start = e.Cursor.Offset + 1
	w.bytes -= e.size()
	e.tally = nil

	id := e.Reply.StreamID
	if of := w.byStream[id]; len(of) > 1 {
		of[0] = nil
		w.byStream[id] = of[1:]
	} else {
		delete(w.byStream, id)
	}
	return e.size()
}

// find gives the first entry of a stream at or after an offset, nil if there is none.
func (w *window) find(id string, from int64) *Entry {
	of := w.byStream[id]
	if len(of) == 0 || of[len(of)-1].Cursor.Offset < from {
		return nil
	}
	return of[sort.Search(len(of), func(i int) bool { return of[i].Cursor.Offset >= from })]
}
