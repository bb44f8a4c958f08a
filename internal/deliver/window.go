package deliver

import (
	"maps"
	"slices"
	"sync"
)

// maxSeen bounds the streams that a window remembers.
const maxSeen = 100_000

// window remembers the last streams of a partition whose record is done, so
// that a record that a producer has put there twice is not tried twice. It
// outlives a generation: what another member did meanwhile is read from the log.
type window struct {
	// incarnation is that of the topic.
	incarnation uint32
	// to is the offset up to which it knows what was done.
	to int64

	ids  map[string]struct{}
	ring []string
	// oldest is the place in the full ring that is overwritten next.
	oldest int
}

func newWindow(incarnation uint32) *window {
	return &window{incarnation: incarnation, ids: make(map[string]struct{})}
}

// add remembers a stream, and forgets the one that was added longest ago when
// there are too many. "" is none.
func (w *window) add(id string) {
	if _, ok := w.ids[id]; ok || id == "" {
		return
	}
	w.ids[id] = struct{}{}
	if len(w.ring) < maxSeen {
		w.ring = append(w.ring, id)
		return
	}
	delete(w.ids, w.ring[w.oldest])
	w.ring[w.oldest] = id
	w.oldest = (w.oldest + 1) % maxSeen
}

func (w *window) has(id string) bool {
	_, ok := w.ids[id]
	return ok
}

// windows are those of the partitions of this member.
type windows struct {
	mu sync.Mutex
	of map[int32]*window
}

func newWindows() *windows { return &windows{of: make(map[int32]*window)} }

// keep drops the windows of partitions that others have now: what those do has
// to be read from the log anyway.
func (w *windows) keep(owned []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.of, func(number int32, _ *window) bool { return !slices.Contains(owned, number) })
}

// window gives what is known of the streams of a partition that are done, in this
// life of the topic.
func (w *windows) window(number int32, incarnation uint32) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.of[number]; known == nil || known.incarnation != incarnation {
		w.of[number] = newWindow(incarnation)
	}
	return w.of[number]
}
