package osmosis

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOpenStreams(t *testing.T) {
	var o openStreams
	enter := func(client string, want error) func() {
		t.Helper()
		leave, err := o.enter(client, 3, 2)
		if !errors.Is(err, want) || (leave == nil) != (want != nil) {
			t.Fatalf("%s: %v, want %v", client, err, want)
		}
		return leave
	}
	first := enter("ada", nil)
	enter("ada", nil)
	enter("ada", errTooManyOfClient)
	other := enter("eve", nil)
	enter("bob", errTooMany)
	first()
	first() // once is enough
	if o.count() != 2 {
		t.Fatalf("%d streams", o.count())
	}
	enter("ada", nil)
	other()
	if len(o.clients) != 1 {
		t.Errorf("clients that left are kept: %v", o.clients)
	}
	// A configuration with lower limits takes nothing away and lets nobody in.
	if _, err := o.enter("bob", 1, 1); !errors.Is(err, errTooMany) {
		t.Errorf("%v", err)
	}
}

func TestOpenStreamsTogether(t *testing.T) {
	var o openStreams
	var group sync.WaitGroup
	for i := range 100 {
		group.Go(func() {
			if leave, err := o.enter(fmt.Sprint(i%7), 50, 10); err == nil {
				if o.count() > 50 {
					t.Error("more streams than may be")
				}
				leave()
			}
		})
	}
	group.Wait()
	if o.count() != 0 || len(o.clients) != 0 {
		t.Errorf("%d streams, clients %v", o.count(), o.clients)
	}
}

func TestAwaitStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o openStreams
		o.await(time.Hour) // nobody is there
		leave, err := o.enter("ada", 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		time.AfterFunc(3*time.Second, leave)
		o.await(2 * time.Second)
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("waited for %s", took)
		}
		o.await(time.Hour)
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("waited for %s", took)
		}
	})
}

func TestSpread(t *testing.T) {
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := spread(time.Second, 2*time.Second)
		least, most = min(least, d), max(most, d)
	}
	if least < time.Second || most > 2*time.Second || most-least < time.Second/2 {
		t.Errorf("from %s to %s", least, most)
	}
	if d := spread(time.Second, time.Second); d != time.Second {
		t.Errorf("%s", d)
	}
}
