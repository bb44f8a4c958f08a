package osmosis

import (
	"slices"
	"sync"
)

// said is what configurations say of something that they share. Several use it
// at once while one takes over from the other: what the last one says holds. Where
// a reload has failed, the one before counts again.
type said[T any] struct {
	apply func(T) // has what holds be done; it may not call back

	mu sync.Mutex
	by []saying[T]
}

type saying[T any] struct {
	app  *App
	what T
}

// use lets a configuration say how it wants it.
func (s *said[T]) use(app *App, what T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = append(s.by, saying[T]{app, what})
	s.apply(what)
}

// leave takes back what a configuration said.
func (s *said[T]) leave(app *App) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = slices.DeleteFunc(s.by, func(one saying[T]) bool { return one.app == app })
	if n := len(s.by); n > 0 {
		s.apply(s.by[n-1].what)
	}
}

// holds gives what the last configuration says, and nothing where there is none.
func (s *said[T]) holds() (what T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.by); n > 0 {
		return s.by[n-1].what, true
	}
	return what, false
}
