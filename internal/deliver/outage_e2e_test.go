//go:build e2e

package deliver

import (
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// outage is how long the upstream is down in its test, unless
// OSMOSIS_TEST_OUTAGE says otherwise.
const outage = 12 * time.Second

// TestUpstreamIsDownOnRealKafka takes the upstream away under load for a while:
// nothing is lost, the backlog is drained when it is back, and no more tries
// run at once than is allowed.
func TestUpstreamIsDownOnRealKafka(t *testing.T) {
	t.Parallel()
	away := outage
	if text := os.Getenv("OSMOSIS_TEST_OUTAGE"); text != "" {
		var err error
		if away, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	var down atomic.Bool
	f := newField(t, 4, func(int, int) (int, time.Duration) {
		if down.Load() {
			return http.StatusBadGateway, time.Millisecond
		}
		return http.StatusOK, 10 * time.Millisecond
	}, func(o *order) {
		o.Attempts, o.Concurrency = 60, 16
		o.Least, o.Most = 100*time.Millisecond, 2*time.Second
	})
	f.add()
	f.add()
	f.send(500, oneIn(10, 100))
	f.until(0)

	down.Store(true)
	const ticks, total = 20, 8_000
	load := time.NewTicker(away / ticks)
	defer load.Stop()
	for range ticks {
		f.send(total/ticks, oneIn(2, 1000))
		<-load.C
	}
	left, err := f.left(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	down.Store(false)
	began := time.Now()
	f.until(0)
	took := time.Since(began)
	f.endAll()
	c := f.check(nil, found{})
	if c.replied != c.records || c.peak > f.order.Concurrency || left < total/2 {
		t.Errorf("%d of %d replied, %d tries at once where %d are allowed, %d left while it was down", c.replied, c.records, c.peak, f.order.Concurrency, left)
	}
	t.Logf("%d records waited after %s; drained in %s: %s", left, away, took.Round(100*time.Millisecond), c)
}
