package hub

import "sync/atomic"

// bell tells a subscription to look again. It is rung under a partition's lock,
// or the hub's, and so are the functions that it calls.
type bell struct {
	wish chan struct{} // holds one
	call atomic.Pointer[func()]
}

func newBell() *bell { return &bell{wish: make(chan struct{}, 1)} }

func (b *bell) ring() {
	select {
	case b.wish <- struct{}{}:
	default:
	}
	if call := b.call.Load(); call != nil {
		(*call)()
	}
}
