package hub

// told is an offset that a broker told, and how old that is.
type told struct {
	at int64
	// asked is the hub's clock before the question; 0 where nobody has answered yet.
	asked uint64
}

// after tells whether the offset is the answer to a question that was asked
// after a tick of the hub's clock, so that it says how things were after that.
func (t told) after(tick uint64) bool { return t.asked > tick }
