package osmosis

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// A bounded context is one with a deadline, whether or not anybody waits for it.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := time.Now().Add(time.Second)
		waited, looked := &bounded{Context: t.Context(), at: at}, &bounded{Context: t.Context(), at: at}
		defer looked.cancel()
		defer waited.cancel()
		if got, ok := waited.Deadline(); !ok || !got.Equal(at) {
			t.Errorf("deadline %s", got)
		}
		if waited.Err() != nil || looked.Err() != nil {
			t.Error("over before its time")
		}
		<-waited.Done()
		if !time.Now().Equal(at) {
			t.Errorf("done after %s", time.Until(at))
		}
		for _, b := range []*bounded{waited, looked} {
			if !errors.Is(b.Err(), context.DeadlineExceeded) {
				t.Errorf("%v", b.Err())
			}
		}

		parent, cancel := context.WithCancel(t.Context())
		left := &bounded{Context: parent, at: at.Add(time.Hour)}
		defer left.cancel()
		child, stop := context.WithCancel(left)
		defer stop()
		cancel()
		<-child.Done()
		if !errors.Is(left.Err(), context.Canceled) {
			t.Errorf("%v", left.Err())
		}
	})
}

// A context made of a bounded one may be told of the end after that has let go
// of its timer, if its goroutine did not run before; by then too there is an error.
func TestBoundedOutlived(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 100 {
		b := &bounded{Context: t.Context(), at: time.Now().Add(time.Hour)}
		_, cancel := context.WithCancel(b)
		cancel()
		b.cancel()
		if err := b.Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("done, and the error is %v", err)
		}
		runtime.Gosched()
	}
}
