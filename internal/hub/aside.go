package hub

// maxAside is how many bytes a scan may put aside for one reader that is slower
// than it. All that is put aside counts to the memory of the windows too, and
// goes as their records do: a client that does not read any more costs memory
// only as long as there is enough.
const maxAside = 8 << 20

// putAside keeps an entry until the reader takes it. Needs the lock.
func (r *reader) putAside(e *Entry) {
	p := r.partition
	if len(r.buffer) == 0 {
		r.place = p.scan.aside.PushBack(r)
	}
	r.buffer = append(r.buffer, e)
	r.buffered += e.cost
	if e.aside++; e.aside == 1 {
		e.tally = &p.scan.bytes
		p.scan.bytes += e.size()
		p.hub.windowBytes.Add(e.size())
	}
}

// takeAside gives the first entry that was put aside, nil if there is none, and
// the bytes that this sets free. Needs the lock.
func (r *reader) takeAside() (*Entry, int64) {
	if len(r.buffer) == 0 {
		return nil, 0
	}
	p, e := r.partition, r.buffer[0]
	r.buffer[0] = nil
	r.buffer = r.buffer[1:]
	r.buffered -= e.cost
	if len(r.buffer) == 0 {
		r.buffer = nil
		p.scan.aside.Remove(r.place)
		r.place = nil
	}
	if e.aside--; e.aside > 0 {
		return e, 0
	}
	e.tally = nil
	p.scan.bytes -= e.size()
	p.hub.windowBytes.Add(-e.size())
	return e, e.size()
}

// clearAside drops what was put aside, and gives the bytes that this sets free. Needs the lock.
func (r *reader) clearAside() int64 {
	var freed int64
	for len(r.buffer) > 0 {
		_, n := r.takeAside()
		freed += n
	}
	return freed
}

// clearOldest drops what was put aside for the reader that has had something
// for the longest. It looks for it again when it goes on. Needs the lock, and
// that something is put aside.
func (p *partition) clearOldest() int64 {
	r := p.scan.aside.Front().Value.(*reader)
	if r.state == riding {
		p.scan.drop(r)
		r.state = idle
	}
	r.next = r.buffer[0].Cursor.Offset
	r.notify()
	return r.clearAside()
}
