package claims

import (
	"container/heap"
	"unique"
)

// table is what the log says of the live claims. Records are applied in the
// order of their partition, and each is judged by the log's time, never by a
// gateway's clock: so all tables that have read the same say the same.
type table struct {
	max   int
	byKey map[[16]byte]*entry
	count int
	due   map[int32]*byUntil // partition → its entries, the first to end in front
	// blindUntil is when the last claim ends that did not fit, in Unix ms. Before
	// it, that a key is not here does not mean that nobody claimed it.
	blindUntil int64
}

// entry is a live claim and what became of it.
type entry struct {
	marks     []Mark
	stream    Stream
	partition int32
	until     int64 // Unix ms; by the log's time the claim is live before it
	index     int   // in its heap

	// holder is the stream id of the claim whose gateway may queue the request:
	// the entry's own at first, another one's when that has taken it up, and
	// nobody's when that one has given it back.
	holder string
	// deadline is until when the holder has time, in Unix ms of the log.
	deadline int64

	noted   bool
	request Position
}

func newTable(most int) *table {
	return &table{max: most, byKey: make(map[[16]byte]*entry), due: make(map[int32]*byUntil)}
}

// find gives the entry of any of the marks, and whether it asks for the same.
// A claim is made under every secret that its gateway has. While secrets are
// replaced, the gateways have at least one in common.
func (t *table) find(marks []Mark) (e *entry, same bool) {
	for _, mine := range marks {
		e := t.byKey[mine.Key]
		if e == nil {
			continue
		}
		for _, its := range e.marks {
			if its.Key == mine.Key {
				return e, its.Body == mine.Body
			}
		}
	}
	return nil, false
}

// apply takes a record that the log took at the given time, in Unix ms.
func (t *table) apply(partition int32, at int64, key []byte, parsed any) {
	switch r := parsed.(type) {
	case claim:
		t.claim(partition, at, r)
	case note:
		if e := t.of(key); e != nil && e.stream.ID == r.stream && !e.noted {
			e.noted, e.request = true, r.request
		}
	case revoke:
		t.revoke(key, r)
	}
}

func (t *table) of(key []byte) *entry {
	if len(key) != len(Mark{}.Key) {
		return nil
	}
	return t.byKey[[16]byte(key)]
}

// claim decides what a claim comes to. Where nobody's claim is live, it is the
// one. Where the one that is has had its time and left no note, it is taken up,
// with its own stream. Otherwise it comes to nothing.
func (t *table) claim(partition int32, at int64, c claim) {
	if e, same := t.find(c.marks); e != nil {
		if at < e.until {
			if same && !e.noted && at >= e.deadline {
				e.holder, e.deadline = c.stream.ID, at+c.patience
			}
			return
		}
		t.remove(e)
	}
	if at >= c.until {
		return
	}
	if t.count >= t.max {
		t.blindUntil = max(t.blindUntil, c.until)
		return
	}
	c.stream.Topic = unique.Make(c.stream.Topic).Value() // one text for all entries
	e := &entry{
		marks: c.marks, stream: c.stream, partition: partition, until: c.until,
		holder: c.stream.ID, deadline: at + c.patience,
	}
	t.count++
	for _, m := range e.marks {
		t.byKey[m.Key] = e
	}
	if t.due[partition] == nil {
		t.due[partition] = new(byUntil)
	}
	heap.Push(t.due[partition], e)
}

// revoke takes a claim back. The first holder's goes away, and the key is free.
// One that has taken another's claim up cannot know whether that one's request
// was queued: it gives up its turn, and the next repeat has the next.
func (t *table) revoke(key []byte, r revoke) {
	e := t.of(key)
	switch {
	case e == nil || e.noted || e.holder != r.holder:
	case e.holder == e.stream.ID:
		t.remove(e)
	default:
		e.holder, e.deadline = "", 0
	}
}

func (t *table) remove(e *entry) {
	t.count--
	for _, m := range e.marks {
		if t.byKey[m.Key] == e {
			delete(t.byKey, m.Key)
		}
	}
	heap.Remove(t.due[e.partition], e.index)
}

// sweep drops the entries of a partition that ended before the given time. All
// records that the log took up to then have to be applied already: one that
// comes later must still meet the entry that it lost against.
func (t *table) sweep(partition int32, before int64) {
	due := t.due[partition]
	for due != nil && due.Len() > 0 && (*due)[0].until <= before {
		t.remove((*due)[0])
	}
}

// drop forgets a partition, which is about to be read again.
func (t *table) drop(partition int32) {
	for due := t.due[partition]; due != nil && due.Len() > 0; {
		t.remove((*due)[due.Len()-1])
	}
}

// byUntil is a heap of entries by their end.
type byUntil []*entry

func (h byUntil) Len() int           { return len(h) }
func (h byUntil) Less(i, j int) bool { return h[i].until < h[j].until }
func (h byUntil) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for package heap.
func (h *byUntil) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for package heap.
func (h *byUntil) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
