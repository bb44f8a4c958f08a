package osmosis

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
	"weak"
)

// A request that comes before the app has started waits for it. One that
// comes when the configuration is gone, or that waited for a start that failed,
// is told to come again.
func TestLease(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		early := &App{started: make(chan struct{}), plan: s.app.plan}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := early.lease(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.AfterFunc(time.Second, func() {
			i, err := early.plan.acquire()
			if err != nil {
				t.Error(err)
			}
			early.shared = newShare(i, early.plan.insideKey)
			close(early.started)
		})
		l, err := early.lease(t.Context())
		if err != nil || l.hub != s.app.inside.hub {
			t.Fatalf("%v", err)
		}
		if n, _ := insides.References(s.app.plan.insideKey); n != 2 {
			t.Errorf("%d references", n)
		}
		l.release()
		early.shared.leave()
		if n, _ := insides.References(s.app.plan.insideKey); n != 1 {
			t.Errorf("%d references", n)
		}
		never := &App{started: make(chan struct{}), failed: make(chan struct{}), plan: s.app.plan}
		time.AfterFunc(time.Second, func() {
			if err := never.Cleanup(); err != nil {
				t.Error(err)
			}
		})
		if _, err := never.lease(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("a start that failed: %v", err)
		}
		gone := &App{started: s.app.started, shared: new(share)}
		gone.plan.insideKey = "gone"
		if _, err := gone.lease(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("%v", err)
		}
		if _, ok := insides.References("gone"); ok {
			t.Error("a lease left something behind")
		}
	})
}

// What a configuration has taken is there until it has ended and its last request
// too, whichever comes last; who comes later finds what another configuration has.
func TestLeaseOutlivesItsConfiguration(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		references := func(want int) {
			t.Helper()
			if n, _ := insides.References(s.app.plan.insideKey); n != want {
				t.Errorf("%d references, want %d", n, want)
			}
		}
		app := s.running()
		references(2)
		var held []*lease
		for range 3 {
			l, err := app.lease(t.Context())
			if err != nil || l.hub != s.app.inside.hub {
				t.Fatal(err)
			}
			held = append(held, l)
		}
		references(2)
		held[0].release()
		if err := app.Cleanup(); err != nil {
			t.Error(err)
		}
		held[1].release()
		references(2)
		late, err := app.lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		late.release()
		// A stream that is left behind, which holds this, keeps nothing else of it.
		release, configuration := held[2].release, weak.Make(app)
		runtime.GC()
		if configuration.Value() != nil {
			t.Error("the configuration is kept")
		}
		release()
		references(1)
	})
}
