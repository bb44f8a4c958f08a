package deliver

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
