//go:build e2e

package deliver

import (
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"
)

// chaos gives how many records a test of chaos delivers, and how often it
// interferes meanwhile: few of them, for what takes time is that the group
// notices who is gone, unless OSMOSIS_CHAOS_RECORDS asks for more.
func chaos(t *testing.T, few, often int) (records, times int) {
	t.Helper()
	if text := os.Getenv("OSMOSIS_CHAOS_RECORDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return n, often * max(1, n/few)
	}
	return few, often
}

// moody is an upstream that fails at random: of a thousand tries 80 with some
// 5xx or 429, and 5 have no answer. One record in 199 never succeeds.
func moody(n, attempt int) (status int, takes time.Duration) {
	d := dice(n, attempt)
	takes = time.Duration(d%20) * time.Millisecond
	switch {
	case n%199 == 198:
		return http.StatusServiceUnavailable, takes
	case d < 5:
		return 0, 0
	case d < 30:
		return http.StatusServiceUnavailable, takes
	case d < 50:
		return http.StatusInternalServerError, takes
	case d < 75:
		return http.StatusBadGateway, takes
	case d < 80:
		return http.StatusTooManyRequests, takes
	}
	return http.StatusOK, takes
}

// TestChaosOnRealKafka kills one of three processes that deliver again and
// again, while others join and leave.
func TestChaosOnRealKafka(t *testing.T) {
	t.Parallel()
	const few = 10_000
	total, rounds := chaos(t, few, 4)
	pause := 2 * time.Second
	if total > few {
		pause = 6 * time.Second // so that there is work done between two kills
	}
	f := newField(t, 12, moody, nil)
	gone := make(map[string]bool)
	var counted found
	for range 3 {
		f.add()
	}
	began := time.Now()
	f.send(total, oneIn(10, 700))
	every := time.NewTicker(pause)
	defer every.Stop()
	for round := range rounds {
		<-every.C
		if left, err := f.left(t.Context()); err == nil && left == 0 {
			break
		}
		switch round % 4 {
		case 0, 2:
			m := f.remove()
			m.kill()
			gone[m.name] = true
			counted.killed++
			f.add()
		case 1:
			f.add()
		case 3:
			f.remove().end()
			counted.stopped++
		}
	}
	f.until(0)
	took := time.Since(began)
	f.endAll()
	c := f.check(gone, counted)
	if c.killed == 0 {
		t.Error("nobody was killed")
	}
	t.Logf("in %s: %s", took.Round(time.Second), c)
}
