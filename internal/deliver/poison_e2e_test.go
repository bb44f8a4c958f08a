//go:build e2e

package deliver

import (
	"net/http"
	"testing"
	"time"
)

// wait lets time pass: that of other processes cannot be made virtual.
func wait(d time.Duration) { <-time.After(d) }

// TestPoisonUnderRebalancesOnRealKafka has members join and leave every five
// seconds while some records fail at once each time, and others take longer
// than the session lasts: all of them are tried exactly as often as is allowed.
func TestPoisonUnderRebalancesOnRealKafka(t *testing.T) {
	t.Parallel()
	const long, quick, good = 4, 20, 500
	poisoned := func(n, _ int) (int, time.Duration) {
		switch {
		case n < long:
			return 0, 0 // until the try is cut off
		case n < long+quick:
			return http.StatusInternalServerError, 0
		}
		return http.StatusOK, 10 * time.Millisecond
	}
	f := newField(t, 4, poisoned, func(o *order) {
		o.Attempts, o.Timeout = 3, sessionTimeout+5*time.Second
		o.Drain = o.Timeout + 5*time.Second // what drain cuts short is tried once more, and does not count
		o.Least, o.Most = time.Second, 2*time.Second
	})
	f.add()
	f.add()
	var leavers []*member
	began := time.Now()
	f.send(long+quick+good, func(n int) string {
		if n < long {
			return ""
		}
		return oneIn(10, 50)(n)
	})
	rebalances := 0
	for left := int64(1); left > 0; rebalances++ {
		wait(5 * time.Second)
		if rebalances%2 == 0 {
			f.add()
		} else {
			m := f.remove()
			_ = m.input.Close() // it leaves now, and ends when its tries have
			leavers = append(leavers, m)
		}
		var err error
		if left, err = f.left(t.Context()); err != nil {
			left = 1 // a broker that is busy may not know
		}
		if time.Since(began) > patience {
			t.Fatalf("records are left: %d or not known: %v", left, err)
		}
	}
	took := time.Since(began)
	f.endAll()
	for _, m := range leavers {
		m.end()
	}
	c := f.check(nil, found{stopped: len(leavers)})
	for n := range long + quick {
		if tries := len(f.upstream.tries[n]); tries != 3 {
			t.Errorf("record %d was tried %d times", n, tries)
		}
	}
	if c.failed != long+quick || c.dead != long+quick || c.deadAgain > 0 || c.replied != good {
		t.Errorf("%d failed, %d dead letters and %d repeated, %d replied", c.failed, c.dead, c.deadAgain, c.replied)
	}
	t.Logf("in %s, with %d rebalances: %s", took.Round(time.Second), rebalances, c)
}

// TestPoisonLongerThanTheSessionOnRealKafka has tries run to their end that take
// longer than the group's session: rebalances would cut them off before. The
// member's heartbeats keep it in the group meanwhile, and each record is tried
// exactly as often as is allowed.
func TestPoisonLongerThanTheSessionOnRealKafka(t *testing.T) {
	t.Parallel()
	const long, good = 4, 200
	f := newField(t, 4, func(n, _ int) (int, time.Duration) {
		if n < long {
			return 0, 0 // until the try's time is over
		}
		return http.StatusOK, 10 * time.Millisecond
	}, func(o *order) {
		o.Attempts, o.Timeout = 3, sessionTimeout+5*time.Second
		o.Least, o.Most = time.Second, 2*time.Second
	})
	m := f.add()
	f.send(long+good, func(n int) string {
		if n < long {
			return ""
		}
		return oneIn(10, 50)(n)
	})
	f.until(0)
	if n := m.evictions(); n > 0 {
		t.Errorf("the group took the partitions away %d times", n)
	}
	f.endAll()
	c := f.check(nil, found{})
	var least time.Duration
	for n := range long {
		tries := f.upstream.tries[n]
		if len(tries) != 3 {
			t.Errorf("record %d was tried %d times", n, len(tries))
		}
		for _, this := range tries {
			if least == 0 || this.took < least {
				least = this.took
			}
		}
	}
	if least < sessionTimeout {
		t.Errorf("a try was cut off after %s", least)
	}
	if c.failed != long || c.dead != long || c.deadAgain > 0 || c.replied != good {
		t.Errorf("%d failed, %d dead letters and %d repeated, %d replied", c.failed, c.dead, c.deadAgain, c.replied)
	}
	t.Logf("each try of the %d poisoned records took %s or longer, with a session of %s: %s", long, least.Round(100*time.Millisecond), sessionTimeout, c)
}
