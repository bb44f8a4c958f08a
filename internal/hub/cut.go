package hub

// cutOff takes a broker's word that the log was cut off at an offset and has
// been written anew since, so that it need not be shorter than it was. Readers
// above the cut have seen what is not there any more. The ends are asked for
// anew, and the window begins at the end.
func (p *partition) cutOff(from position, at int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired || !p.log.known || from != p.stands() {
		return // the answer is too late, see take
	}
	p.log.known = false
	for r := range p.readers {
		switch {
		case r.cut != nil:
			at := min(at, *r.cut)
			r.cut = &at
		case r.seen() > at:
			r.cut = &at
		}
	}
}

// lost gives where the log was cut off under the reader, nil if it is the log
// that the reader has seen, but for its end.
func (r *reader) lost() *int64 {
	r.partition.mu.Lock()
	defer r.partition.mu.Unlock()
	return r.cut
}
