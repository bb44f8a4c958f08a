package deliver

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
)

const (
	// maxSeen bounds the streams that the windows of a process remember together, and
	// maxSeenEach those of one window.
	maxSeen     = 1_000_000
	maxSeenEach = 100_000
)

// memory shares out how many streams may be remembered among the windows of all
// deliveries.
type memory struct {
	most int

	mu  sync.Mutex
	all map[*window]struct{}
}

// remembered is the memory of this process. Nothing is in it but bounds: a window is
// its delivery's, and goes with it.
var remembered = newMemory(maxSeen)

func newMemory(most int) *memory { return &memory{most: most, all: make(map[*window]struct{})} }

// change adds windows and takes others away, and gives each that is there its share.
func (m *memory) change(added, removed []*window) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range removed {
		delete(m.all, w)
	}
	for _, w := range added {
		m.all[w] = struct{}{}
	}
	share := min(maxSeenEach, m.most/max(len(m.all), 1))
	for w := range m.all {
		w.resize(share)
	}
}

// seed makes hashes of stream ids another process's no more than anybody's guess.
var seed = maphash.MakeSeed()

// hash gives what is remembered of a stream, 0 for "", which is none.
//
// Two ids may have the same hash. If one of them is in the window when the other's
// record comes, that record is taken for done, and its stream ends as expired. With
// a full window that befalls one record in 180 million million.
func hash(id string) uint64 {
	if id == "" {
		return 0
	}
	return max(maphash.String(seed, id), 1)
}

// window remembers the last streams of a partition whose record is done, so
// that a record that a producer has put there twice is not tried twice. It
// outlives an interruption of the membership.
type window struct {
	// incarnation is that of the topic.
	incarnation uint32
	// to is the offset up to which it knows what was done.
	to int64

	mu sync.Mutex
	// most is how many streams it may remember.
	most int
	// ring has the hashes in the order in which they were added; from is the place of
	// the first when the ring is full, and is overwritten next.
	ring []uint64
	from int
	// slots are places in the ring, from 1 on: each in the slot that its hash names, or
	// in the next free one behind that. 0 is free, and half of them are.
	slots []uint32
}

func newWindow(incarnation uint32) *window {
	return &window{incarnation: incarnation, most: maxSeenEach}
}

// add remembers a stream, and forgets the one that was added longest ago when
// there are too many. "" is none.
func (w *window) add(id string) { w.addHash(hash(id)) }

func (w *window) addHash(h uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h == 0 || w.most == 0 || w.find(h) >= 0 {
		return
	}
	if len(w.ring) == cap(w.ring) && len(w.ring) < w.most {
		w.rebuild(min(w.most, max(64, len(w.ring)+len(w.ring)/2)))
	}
	if len(w.ring) < cap(w.ring) {
		w.ring = append(w.ring, h)
		w.enter(len(w.ring) - 1)
		return
	}
	w.leave(w.find(w.ring[w.from])) // it is in there once
	w.ring[w.from] = h
	w.enter(w.from)
	w.from = (w.from + 1) % len(w.ring)
}

func (w *window) has(id string) bool {
	h := hash(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	return h != 0 && w.find(h) >= 0
}

// len gives how many streams it remembers.
func (w *window) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ring)
}

// share gives how many it may remember.
func (w *window) share() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}

// resize changes how many it may remember.
func (w *window) resize(most int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most = most; cap(w.ring) > most {
		w.rebuild(most)
	}
}

// home is the slot where a hash is looked for first. Needs the lock.
func (w *window) home(h uint64) int {
	return int((h >> 32) * uint64(len(w.slots)) >> 32) //nolint:gosec // less than the length
}

// after gives the slot behind another. Needs the lock.
func (w *window) after(slot int) int {
	if slot++; slot < len(w.slots) {
		return slot
	}
	return 0
}

// find gives the slot of a hash, -1 for none. Needs the lock.
func (w *window) find(h uint64) int {
	if len(w.slots) == 0 {
		return -1
	}
	for i := w.home(h); w.slots[i] != 0; i = w.after(i) {
		if w.ring[w.slots[i]-1] == h {
			return i
		}
	}
	return -1
}

// enter gives a place in the ring a slot. Needs the lock.
func (w *window) enter(place int) {
	i := w.home(w.ring[place])
	for w.slots[i] != 0 {
		i = w.after(i)
	}
	w.slots[i] = uint32(place + 1) //nolint:gosec // at most maxSeenEach
}

// leave frees a slot. What stands behind it because it was taken moves up. Needs the
// lock.
func (w *window) leave(free int) {
	distance := func(from, to int) int { return (to - from + len(w.slots)) % len(w.slots) }
	for i := w.after(free); w.slots[i] != 0; i = w.after(i) {
		if home := w.home(w.ring[w.slots[i]-1]); distance(home, i) >= distance(free, i) {
			w.slots[free] = w.slots[i]
			free = i
		}
	}
	w.slots[free] = 0
}

// rebuild makes room for so many, and keeps those that were added last. Needs the
// lock.
func (w *window) rebuild(size int) {
	kept := slices.Concat(w.ring[w.from:], w.ring[:w.from])
	kept = kept[max(len(kept)-size, 0):]
	w.ring, w.from = append(make([]uint64, 0, size), kept...), 0
	w.slots = make([]uint32, 2*size)
	for place := range w.ring {
		w.enter(place)
	}
}

// windows are those of the partitions of this member.
type windows struct {
	memory *memory

	mu sync.Mutex
	of map[int32]*window
}

func newWindows(m *memory) *windows { return &windows{memory: m, of: make(map[int32]*window)} }

// keep has windows for the partitions of this member. It drops those of partitions
// that others have now: what those do has to be read from the log anyway.
func (w *windows) keep(owned []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var added, removed []*window
	maps.DeleteFunc(w.of, func(number int32, old *window) bool {
		gone := !slices.Contains(owned, number)
		if gone {
			removed = append(removed, old)
		}
		return gone
	})
	for _, number := range owned {
		if w.of[number] == nil {
			w.of[number] = newWindow(0)
			added = append(added, w.of[number])
		}
	}
	w.memory.change(added, removed)
}

// window gives what is known of the streams of a partition that are done, in this
// life of the topic. Of a partition that is not this member's any more it gives an
// empty one.
func (w *windows) window(number int32, incarnation uint32) *window {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.of[number]
	switch {
	case known == nil:
		return newWindow(incarnation)
	case known.incarnation == incarnation:
		return known
	}
	w.of[number] = newWindow(incarnation)
	w.memory.change([]*window{w.of[number]}, []*window{known})
	return w.of[number]
}
