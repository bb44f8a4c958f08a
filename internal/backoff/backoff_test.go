package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff(t *testing.T) {
	var b Backoff
	most := Least
	for range 20 {
		if d := b.Next(); d < most/2 || d > most {
			t.Errorf("pause %s after %d failures, want up to %s", d, b.Failures(), most)
		}
		most = min(2*most, Most)
	}
	if b.Reset(); b.Failures() != 0 || b.Next() > Least {
		t.Error("failures were not forgotten")
	}
}

func TestPauseHasTheCallersBounds(t *testing.T) {
	const least, bound = 50 * time.Millisecond, time.Second
	for failures, most := range map[int]time.Duration{1: least, 2: 2 * least, 3: 4 * least, 5: 16 * least, 6: bound, 1000: bound} {
		for range 20 {
			if d := Pause(failures, least, bound); d < most/2 || d > most {
				t.Errorf("pause %s after %d failures, want up to %s", d, failures, most)
			}
		}
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Backoff
		begun := time.Now()
		if !b.Sleep(t.Context()) || time.Since(begun) < Least/2 || b.Failures() != 1 {
			t.Errorf("slept %s", time.Since(begun))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun = time.Now()
		if b.Sleep(ctx) || time.Since(begun) != 0 {
			t.Error("slept on")
		}
	})
}
