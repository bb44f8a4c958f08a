package deliver

import "sync"

// cancellations are the requests that their clients have called off, and the
// tries that run, which are called off when that comes.
type cancellations struct {
	mu      sync.Mutex
	off     map[string]struct{}
	running map[string]func()
}

// cancelled tells whether a request was called off.
func (d *Delivery) cancelled(id string) bool {
	d.off.mu.Lock()
	defer d.off.mu.Unlock()
	_, ok := d.off.off[id]
	return ok
}

// underWay has a try called off when its request is, until the function that it
// gives is called.
func (d *Delivery) underWay(id string, callOff func()) (ended func()) {
	d.off.mu.Lock()
	defer d.off.mu.Unlock()
	if d.off.running == nil {
		d.off.running = make(map[string]func())
	}
	d.off.running[id] = callOff
	return func() {
		d.off.mu.Lock()
		defer d.off.mu.Unlock()
		delete(d.off.running, id)
	}
}
