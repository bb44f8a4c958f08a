package deliver

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// lasting is a request that nobody gives up for as long as a test runs.
func (r *rig) lasting(id, body string) record.Record {
	rec := r.request(id, "", body)
	for i, h := range rec.Headers {
		if h.Key == record.HeaderExpires {
			rec.Headers[i].Value = strconv.AppendInt(nil, time.Now().Add(100*time.Hour).UnixMilli(), 10)
		}
	}
	return rec
}

// times are those at which the tries of each stream began.
type times struct {
	mu    sync.Mutex
	begun map[string][]time.Time
}

// note adds a try and gives its number.
func (s *times) note(r *http.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun == nil {
		s.begun = make(map[string][]time.Time)
	}
	id := r.Header.Get(HeaderStreamID)
	s.begun[id] = append(s.begun[id], time.Now())
	return len(s.begun[id])
}

// pauses gives the time between each two tries of a stream.
func (s *times) pauses(id string) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for i := 1; i < len(s.begun[id]); i++ {
		all = append(all, s.begun[id][i].Sub(s.begun[id][i-1]))
	}
	return all
}

// 408, 409, 425, 429 and every 5xx are tried again. Every other status is the
// reply, whether the handler writes it or, from 400 on, returns it as an error.
func TestStatusesThatAreTriedAgain(t *testing.T) {
	again := []int{408, 409, 425, 429, 500, 501, 502, 503, 504, 507, 511, 599}
	final := []int{
		200, 201, 202, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 413, 414,
		415, 416, 417, 418, 421, 422, 423, 424, 426, 428, 431, 451, 499,
	}
	for name, answer := range map[string]func(http.ResponseWriter, int) error{
		"written": func(w http.ResponseWriter, status int) error { w.WriteHeader(status); return nil },
		"error": func(_ http.ResponseWriter, status int) error {
			return &Failure{Code: status, Err: http.ErrServerClosed}
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				var tries times
				r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
					status, err := strconv.Atoi(req.Header.Get("Status"))
					if err != nil || tries.note(req) > 1 {
						return err
					}
					return answer(w, status)
				}))
				var recs []record.Record
				all := slices.Concat(again, final)
				if name == "error" {
					all = slices.DeleteFunc(all, func(status int) bool { return status < http.StatusBadRequest })
				}
				for _, status := range all {
					rec := r.request(strconv.Itoa(status), "", "")
					rec.Headers = append(rec.Headers, record.Header{Key: "status", Value: strconv.AppendInt(nil, int64(status), 10)})
					recs = append(recs, rec)
				}
				if _, err := r.put(t.Context(), testTopic, 0, recs...); err != nil {
					t.Fatal(err)
				}
				r.done(int64(len(recs)))
				told := r.replies()
				for _, status := range all {
					id := strconv.Itoa(status)
					got, n := told[id], len(tries.pauses(id))+1
					if want := slices.Contains(again, status); want && (n != 2 || len(got) != 2 || got[1] != "200 ") || !want && (n != 1 || fmt.Sprint(got) != "["+id+" ]") {
						t.Errorf("%s: %d tries, told %q", id, n, got)
					}
				}
			})
		})
	}
}

// The pause doubles from the shortest to the longest. At random, up to half of it
// is cut off.
func TestPausesDouble(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		const records = 60
		wholes := []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second, 30 * time.Second}
		var tries times
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			tries.note(req)
			return bad(w, req)
		}, func(o *Options) {
			o.Attempts, o.Concurrency = len(wholes)+1, 2*records
			o.BackoffMin, o.BackoffMax = 2*time.Second, 30*time.Second
		}))
		r.send(records, keyless)
		pass(10 * time.Minute)
		r.done(records)
		for i, whole := range wholes {
			shortest, longest := time.Hour, time.Duration(0)
			for n := range records {
				pauses := tries.pauses("s" + strconv.Itoa(n))
				if len(pauses) != len(wholes) {
					t.Fatalf("%d tries, want %d", len(pauses)+1, len(wholes)+1)
				}
				shortest, longest = min(shortest, pauses[i]), max(longest, pauses[i])
			}
			// A millisecond is for the commit that comes before the next try.
			if shortest < whole/2 || longest > whole+time.Millisecond {
				t.Errorf("pauses %d last %s to %s, want %s to %s", i+1, shortest, longest, whole/2, whole)
			}
			if shortest > whole*6/10 || longest < whole*9/10 {
				t.Errorf("pauses %d last %s to %s: records that failed together come back together", i+1, shortest, longest)
			}
		}
	})
}

// Each pause is one of the whole range, and nothing of it depends on how often
// it was asked for.
func TestPauseAfter(t *testing.T) {
	o := Options{BackoffMin: time.Second, BackoffMax: time.Minute}
	for tries, whole := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 4: 8 * time.Second, 5: 16 * time.Second, 6: 32 * time.Second,
		7: time.Minute, 8: time.Minute, 100: time.Minute, 1_000_000: time.Minute,
	} {
		const samples = 2000
		var sum time.Duration
		for range samples {
			d := pauseAfter(tries, o)
			if d < whole/2 || d > whole {
				t.Fatalf("%s after %d tries, want %s to %s", d, tries, whole/2, whole)
			}
			sum += d
		}
		// The mean of so many is less than a hundredth of the whole from the middle.
		if mean := sum / samples; (mean - whole*3/4).Abs() > whole/50 {
			t.Errorf("%s after %d tries on average, want %s", mean, tries, whole*3/4)
		}
	}
}

// What an upstream asks for in Retry-After is waited for, an hour at most, and
// does not shorten the pause.
func TestRetryAfterIsBounded(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		asked := map[string]struct {
			header func() string
			from   time.Duration
			to     time.Duration
		}{
			"seconds":   {func() string { return "1800" }, 30 * time.Minute, 30 * time.Minute},
			"an-hour":   {func() string { return "3600" }, time.Hour, time.Hour},
			"a-day":     {func() string { return "86400" }, time.Hour, time.Hour},
			"a-date":    {func() string { return time.Now().Add(45 * time.Minute).UTC().Format(http.TimeFormat) }, 44 * time.Minute, 45 * time.Minute},
			"next-year": {func() string { return time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat) }, time.Hour, time.Hour},
			"at-once":   {func() string { return "0" }, 5 * time.Second, 10 * time.Second},
			"a-second":  {func() string { return "1" }, 5 * time.Second, 10 * time.Second},
		}
		var tries times
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			if tries.note(req) > 1 {
				return echo(w, req)
			}
			w.Header().Set("Retry-After", asked[req.Header.Get(HeaderStreamID)].header())
			w.WriteHeader(http.StatusServiceUnavailable)
			return nil
		}, func(o *Options) { o.BackoffMin, o.BackoffMax = 10*time.Second, 10*time.Second }))
		for id := range asked {
			if _, err := r.put(t.Context(), testTopic, 0, r.lasting(id, id)); err != nil {
				t.Fatal(err)
			}
		}
		pass(65 * time.Minute)
		r.done(int64(len(asked)))
		for id, want := range asked {
			pauses := tries.pauses(id)
			if len(pauses) != 1 || pauses[0] < want.from || pauses[0] > want.to+time.Millisecond {
				t.Errorf("%s: pauses %v, want %s to %s", id, pauses, want.from, want.to)
			}
		}
	})
}
