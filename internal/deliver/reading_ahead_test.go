package deliver

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// unanswered are so many requests for which nobody waits: what they are tried for
// is not told.
func (r *rig) unanswered(from, to int) {
	r.t.Helper()
	const together = 1000
	for from < to {
		var recs []record.Record
		for ; from < to && len(recs) < together; from++ {
			h, err := http.NewRequest(http.MethodPost, "https://example.com/orders", nil)
			if err != nil {
				r.t.Fatal(err)
			}
			h.RequestURI = "/orders"
			rec, err := record.FromHTTP(h, nil, record.Meta{
				StreamID: "s" + strconv.Itoa(from), Source: "https://example.com", Type: "osmosis.request", Time: time.Now(), Scheme: "https",
			})
			if err != nil {
				r.t.Fatal(err)
			}
			recs = append(recs, rec)
		}
		if _, err := r.put(r.t.Context(), testTopic, 0, recs...); err != nil {
			r.t.Fatal(err)
		}
	}
}

// Behind a record that is not done, 16,000 offsets are read and no more.
func TestReadingAheadEnds(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		release := make(chan struct{})
		var done atomic.Int64
		r.deliver(options(func(_ http.ResponseWriter, req *http.Request) error {
			if req.Header.Get(HeaderStreamID) == "s0" {
				<-release
			}
			done.Add(1)
			return nil
		}, func(o *Options) { o.Timeout = 100 * time.Hour }))
		behind := func(what string, want int64) {
			t.Helper()
			pass(time.Minute)
			if n := done.Load(); n != want {
				t.Errorf("%s: %d records behind the first are done, want %d", what, n, want)
			}
		}
		// One answer of the broker may hold more than there is room for, so the last
		// records come one at a time.
		r.unanswered(0, 15_998)
		behind("almost all", 15_997)
		r.unanswered(15_998, 15_999)
		behind("15,999", 15_998)
		r.unanswered(15_999, 16_000)
		behind("16,000", 15_999)
		r.unanswered(16_000, 16_001)
		behind("16,001", 15_999)
		if p := r.committed(); p.base != 0 || len(p.done) != 1 || p.done[0] != (span{1, 16_000}) {
			t.Errorf("committed %+v", p)
		}
		close(release)
		r.done(16_001)
	})
}

// What is committed takes 3,500 bytes at most, however much fails, in the worst
// order too. No more begins then, but for the first record; and all comes to an end.
func TestMetadataIsBounded(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const records = 2500
		var works atomic.Bool
		got := r.commits(0)
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			n, _ := strconv.Atoi(req.Header.Get(HeaderStreamID)[1:])
			if n%2 == 0 && !works.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return nil
		}, func(o *Options) {
			o.Attempts, o.Concurrency, o.BackoffMin, o.BackoffMax = 1000, 200, 5*time.Second, 5*time.Second
		}))
		r.unanswered(0, records)
		longest := 0
		look := func() {
			for _, c := range got.take() {
				longest = max(longest, len(c.metadata))
			}
		}
		for range 2 {
			pass(11 * time.Second)
			look()
		}
		if longest > 3500 || longest < 3000 {
			t.Errorf("up to %d bytes of metadata, want 3,000 to 3,500", longest)
		}
		if p := r.committed(); p.base != 0 || p.end() >= records {
			t.Errorf("everything was tried, up to %d", p.end())
		}
		works.Store(true)
		r.done(records)
		if look(); longest > 3500 {
			t.Errorf("up to %d bytes of metadata", longest)
		}
	})
}

// A try begins only if there is room for what it may add, and nearly all of the
// 3,500 bytes are used before none begins.
func TestMetadataIsUsedUp(t *testing.T) {
	for tries := 1; tries <= 40; tries += 13 {
		p := progress{base: 1_000_000, incarnation: 1<<32 - 1}
		offset := p.base + 1
		for ; p.fits(1, offset); offset += 2 {
			for range tries {
				p.fail(offset)
			}
		}
		if n := len(p.encode()); n > 3500 || n < 3450 {
			t.Errorf("%d tries each: no more begins at %d bytes, want 3,450 to 3,500", tries, n)
		}
	}
}
