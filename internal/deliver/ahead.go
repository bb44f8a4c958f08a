package deliver

// DoneBelow returns how many records at and after a commit's offset, and below
// another offset, the commit says are done. It is zero for the commits of others,
// and for those that cannot be read.
func DoneBelow(offset int64, metadata string, below int64) (done int64) {
	p, err := parseProgress(offset, metadata)
	if err != nil {
		return 0
	}
	for _, s := range p.done {
		done += max(min(s.to, below)-s.from, 0)
	}
	return done
}
