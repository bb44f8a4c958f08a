package deliver

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// crowd is a site that counts the requests it has at once. Those of streams whose
// name begins with h hang until they are cut off.
type crowd struct {
	mu        sync.Mutex
	now, most int
	served    map[string]time.Time // when a stream's request was answered
	// takes is how long the others take to be answered.
	takes func(stream string) time.Duration
}

func newCrowd() *crowd {
	return &crowd{served: make(map[string]time.Time), takes: func(string) time.Duration { return 10 * time.Millisecond }}
}

func (c *crowd) answer(w http.ResponseWriter, r *http.Request) error {
	id := r.Header.Get(HeaderStreamID)
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	takes := c.takes(id)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.now--
	}()
	if strings.HasPrefix(id, "h") {
		takes = time.Hour
	}
	select {
	case <-time.After(takes):
	case <-r.Context().Done():
		return r.Context().Err()
	}
	c.mu.Lock()
	c.served[id] = time.Now()
	c.mu.Unlock()
	_, err := io.WriteString(w, "ok")
	return err
}

// peak gives the most requests at once since the last call.
func (c *crowd) peak() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.most
	c.most = c.now
	return most
}

// slowest gives the longest time that a stream of some was not answered since then,
// and how many were.
func (c *crowd) slowest(prefix string, since time.Time) (slowest time.Duration, served int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, at := range c.served {
		if strings.HasPrefix(id, prefix) {
			slowest = max(slowest, at.Sub(since))
			served++
		}
	}
	return slowest, served
}

// post puts requests on the topic, each of a key of its own.
func (r *rig) post(prefix string, from, to int) {
	r.t.Helper()
	for i := from; i < to; i++ {
		id := prefix + strconv.Itoa(i)
		if _, err := r.put(r.t.Context(), testTopic, 0, r.request(id, "key "+id, id)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// usually are the options of a site that says nothing about them, but for fewer tries at once.
func usually(o *Options) {
	o.Attempts, o.BackoffMin, o.BackoffMax, o.Timeout = DefaultAttempts, DefaultBackoffLeast, DefaultBackoffMost, DefaultTimeout
}

// With as many keys that hang as there are places, twice as many, and again and
// again, the others wait for as long as an upstream may be silent, and not for the
// timeout. The site never has more than twice the concurrency at once.
func TestHangingKeys(t *testing.T) {
	const concurrency = 10
	for _, hang := range []int{concurrency, 2*concurrency - 1} {
		t.Run(strconv.Itoa(hang), func(t *testing.T) {
			virtually(t, func(t *testing.T, r *rig) {
				c := newCrowd()
				d := r.deliver(options(c.answer, usually))
				r.post("h", 0, hang)
				pass(time.Second)
				const rounds, each = 45, 20 // a quarter of an hour: each of those that hang is tried three times
				for round := range rounds {
					began := time.Now()
					name := fmt.Sprintf("ok-%d-", round)
					r.post(name, 0, each)
					pass(20 * time.Second)
					slowest, served := c.slowest(name, began)
					if served != each || slowest > silentAfter+time.Second {
						t.Fatalf("after %d rounds %d of %d were served, within %s", round, served, each, slowest)
					}
				}
				if most := c.peak(); most > 2*concurrency {
					t.Errorf("%d requests at once", most)
				}
				l := d.Load()
				if l.Running < min(hang, concurrency/2) || l.WorkTime > silentAfter {
					t.Errorf("%+v", l)
				}
			})
		})
	}
}

// Beyond that no more is asked of the site, until something ends.
func TestTooManyHangingKeys(t *testing.T) {
	const concurrency, timeout = 10, 5 * time.Minute
	virtually(t, func(t *testing.T, r *rig) {
		c := newCrowd()
		r.deliver(options(c.answer, usually))
		began := time.Now()
		r.post("h", 0, 5*concurrency)
		r.post("ok", 0, 1)
		pass(timeout - time.Second)
		if most := c.peak(); most != 2*concurrency {
			t.Errorf("%d requests at once, want %d", most, 2*concurrency)
		}
		pass(20 * time.Minute)
		slowest, served := c.slowest("ok", began)
		if served != 1 || slowest < timeout {
			t.Errorf("%d served after %s", served, slowest)
		}
		if most := c.peak(); most > 2*concurrency {
			t.Errorf("%d requests at once", most)
		}
	})
}

// A site whose answers take long to begin is not asked for more than the
// concurrency once that is known, nor one that has begun to answer.
func TestSlowIsNotSilent(t *testing.T) {
	const concurrency = 4
	virtually(t, func(t *testing.T, r *rig) {
		c := newCrowd()
		c.takes = func(string) time.Duration { return time.Minute }
		o := options(c.answer, usually)
		o.Concurrency = concurrency
		r.deliver(o)
		r.post("slow", 0, concurrency)
		pass(2 * time.Minute)
		c.peak()
		r.post("more", 0, 20)
		pass(6 * time.Minute)
		if most := c.peak(); most != concurrency {
			t.Errorf("%d requests at once at a slow site, want %d", most, concurrency)
		}
	})
	// One that says after a minute that it cannot answer is not slow.
	virtually(t, func(t *testing.T, r *rig) {
		c := newCrowd()
		o := options(func(w http.ResponseWriter, req *http.Request) error {
			if strings.HasPrefix(req.Header.Get(HeaderStreamID), "late") {
				select {
				case <-time.After(time.Minute):
				case <-req.Context().Done():
				}
				return bad(w, req)
			}
			return c.answer(w, req)
		}, usually)
		o.Concurrency = concurrency
		r.deliver(o)
		r.post("late", 0, 1)
		pass(2 * time.Minute)
		r.post("h", 0, concurrency)
		pass(time.Second)
		began := time.Now()
		r.post("ok", 0, 4)
		pass(time.Minute)
		if slowest, served := c.slowest("ok", began); served != 4 || slowest > silentAfter {
			t.Errorf("%d were served, within %s", served, slowest)
		}
	})
	for name, say := range map[string]func(w http.ResponseWriter){
		"header":  func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
		"interim": func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints) },
		"byte":    func(w http.ResponseWriter) { _, _ = w.Write([]byte("b")) },
	} {
		virtually(t, func(t *testing.T, r *rig) {
			c := newCrowd()
			c.takes = func(string) time.Duration { return time.Minute }
			o := options(func(w http.ResponseWriter, req *http.Request) error {
				pass(silentAfter - time.Second)
				say(w)
				return c.answer(w, req)
			}, usually)
			o.Concurrency = concurrency
			r.deliver(o)
			r.post("slow", 0, 3*concurrency)
			pass(5 * time.Minute)
			if most := c.peak(); most != concurrency {
				t.Errorf("%d requests at once when the site had sent its first %s, want %d", most, name, concurrency)
			}
		})
	}
}

// silence has the upstreams of all tries be silent for as long as that may be.
func (b *bench) silence() {
	for _, j := range b.begun {
		b.goesOn(j)
	}
	time.Sleep(silentAfter)
	synctest.Wait()
}

// kinds counts the tries that run of records that were tried before, and the others.
func (b *bench) kinds() (retries, first int) {
	for _, j := range b.begun {
		if j.past.tried() {
			retries++
		} else {
			first++
		}
	}
	return retries, first
}

// failing is a bench with records that have failed once and may be tried again.
func failing(concurrency, failed int) *bench {
	b := newBench(concurrency)
	var p progress
	for offset := range int64(failed) {
		p.fail(offset)
	}
	b.assign(0, p, newWindow(0), false)
	b.assign(1, progress{}, newWindow(0), false)
	return b
}

// While there is something new, what was tried before has half of the places, in
// whichever partition it waits. Otherwise it has all of them.
func TestRetriesAndNewOnes(t *testing.T) {
	for _, concurrency := range []int{1, 2, 3, 10} {
		for _, where := range []int32{0, 1} {
			b := failing(concurrency, 100)
			b.concurrency = 0
			b.put(0, records(0, 100), 100)
			first := int64(0)
			if where == 0 {
				first = 100
			}
			b.put(where, records(first, first+100), first+100)
			b.limit(concurrency)
			took := [2]int{}
			half := max(concurrency/2, 1)
			for range 100 {
				retries, first := b.kinds()
				if retries+first != concurrency || concurrency > 1 && retries != half {
					t.Fatalf("%d retries and %d others run, with %d places", retries, first, concurrency)
				}
				j := b.take()
				if j.past.tried() {
					took[0]++
				} else {
					took[1]++
				}
				b.done(j)
			}
			if took[0] < 25 || took[1] < 25 {
				t.Errorf("%d retries and %d others ended, with %d places", took[0], took[1], concurrency)
			}
			for len(b.begun) > 0 {
				if retries, first := b.kinds(); first == 0 && retries < min(concurrency, 100-took[0]) {
					t.Fatalf("%d retries run and nothing else, with %d places", retries, concurrency)
				}
				if b.begun[0].past.tried() {
					took[0]++
				}
				b.done(b.take())
			}
			if took[0] != 100 {
				t.Errorf("%d retries ended", took[0])
			}
		}
	}
}

// Retries that have all places, since nothing new waited, give half of them back
// when something does, however many hang. While they do, no more than half of the
// places are theirs.
func TestHangingRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const concurrency = 10
		b := failing(concurrency, 100)
		b.put(0, records(0, 100), 100)
		if retries, _ := b.kinds(); retries != concurrency {
			t.Fatalf("%d retries run", retries)
		}
		b.silence()
		if retries, _ := b.kinds(); retries != concurrency {
			t.Errorf("%d retries run with all that are silent", retries)
		}
		const each = concurrency / 2
		for round := range int64(20) {
			b.put(1, records(round*each, (round+1)*each), (round+1)*each)
			retries, first := b.kinds()
			if first != each || retries != concurrency || b.retrying != each || b.displaced != each {
				t.Fatalf("%d retries run, %d of them with a place, and %d new ones, in round %d", retries, b.retrying, first, round)
			}
			b.silence() // the new ones hang for a while, too
			for i := len(b.begun) - 1; i >= 0; i-- {
				if j := b.begun[i]; !j.retry {
					b.begun = slices.Delete(b.begun, i, i+1)
					b.done(j)
				}
			}
		}
		for len(b.begun) > 0 { // what hung comes back
			b.done(b.take())
		}
		if p := b.partitions[0]; p.progress.base != 100 {
			t.Errorf("stuck at %d", p.progress.base)
		}
	})
}

// Which of those that are silent lose their place, and when none does.
func TestWhoIsDisplaced(t *testing.T) {
	bubble := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	bubble("retries first", func(t *testing.T) {
		b := failing(4, 2)
		b.put(1, records(0, 2), 2)
		b.silence()
		b.put(0, records(0, 2), 2)
		b.silence()
		b.put(1, records(2, 4), 4)
		for _, j := range b.begun {
			if !j.displaced.IsZero() != j.retry {
				t.Errorf("%s lost its place: %t", b.place(j), !j.displaced.IsZero())
			}
		}
	})
	bubble("not one that is heard late", func(t *testing.T) {
		b := newBench(1, 0)
		b.put(0, records(0, 1), 1)
		b.silence()
		b.begun[0].heard.Store(true)
		b.put(0, records(1, 2), 2)
		if len(b.begun) != 1 {
			t.Errorf("%d run", len(b.begun))
		}
	})
	bubble("one that was heard when it was tried before", func(t *testing.T) {
		b := newBench(1, 0)
		b.put(0, records(0, 1), 1)
		j := b.take()
		j.heard.Store(true)
		b.failed(j, cause{}, again)
		b.park(j, time.Millisecond)
		time.Sleep(time.Second)
		synctest.Wait()
		b.silence()
		b.put(0, records(1, 2), 2)
		if len(b.begun) != 2 || b.begun[0] != j {
			t.Errorf("%d run", len(b.begun))
		}
	})
	bubble("none while answers wait for the broker", func(t *testing.T) {
		b := newBench(2, 0)
		b.put(0, records(0, 10), 10)
		b.silence()
		b.returned(b.begun[0])
		b.returned(b.begun[1]) // of those that run two have a place, and two answers are on their way
		b.silence()
		if len(b.begun) != 6 || b.displaced != 2 {
			t.Fatalf("%d have begun, %d have lost their place", len(b.begun), b.displaced)
		}
		b.silence()
		b.returned(b.begun[2]) // and three
		if len(b.begun) != 6 {
			t.Errorf("%d have begun, with three answers on their way", len(b.begun))
		}
		b.done(b.begun[0])
		if len(b.begun) != 7 {
			t.Errorf("%d have begun, with two answers on their way", len(b.begun))
		}
	})
}

// A scaler is told how long a try held up others, and not how long it hung.
func TestWorkOfWhatHangs(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		c := newCrowd()
		o := options(c.answer, func(o *Options) { o.Concurrency, o.Attempts, o.Timeout = 1, 1, time.Minute })
		d := r.deliver(o)
		r.post("h", 0, 1)
		pass(time.Second)
		r.post("ok", 0, 1)
		pass(20 * time.Second)
		if l := d.Load(); l.Running != 1 || l.WorkTime != 10*time.Millisecond {
			t.Errorf("%+v while one hangs", l)
		}
		pass(time.Minute)
		if l := d.Load(); l.Running != 0 || l.WorkTime < silentAfter/2 || l.WorkTime > silentAfter {
			t.Errorf("%+v when it has ended", l)
		}
	})
}

// A record that is tried again is not taken for silent because it was, once.
func TestSilenceIsOfATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(2, 0)
		b.put(0, records(0, 1), 1)
		j := b.take()
		b.goesOn(j)
		time.Sleep(silentAfter - 2*reportAfter)
		b.failed(j, cause{}, again)
		b.park(j, time.Millisecond)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(b.begun) != 1 || len(b.silent) != 0 {
			t.Fatalf("%d run, %d are silent", len(b.begun), len(b.silent))
		}
		b.goesOn(j)
		time.Sleep(silentAfter)
		synctest.Wait()
		b.put(0, records(1, 3), 3)
		if len(b.begun) != 3 || b.displaced != 1 {
			t.Errorf("%d run, %d are displaced", len(b.begun), b.displaced)
		}
		b.park(j, time.Hour)
		if b.displaced != 0 || len(b.silent) != 0 || b.running != 2 || b.ending != 0 || b.retrying != 0 {
			t.Errorf("%d are displaced and %d silent, %d have a place", b.displaced, len(b.silent), b.running)
		}
	})
}

// Whatever hangs, fails and ends, the bounds hold, the progress fits into a commit,
// no place is empty while something could be tried, and all comes to an end.
func TestPlacesAtRandom(t *testing.T) {
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			concurrency := []int{1, 2, 7, 40, 150}[seed%5]
			b := newBench(concurrency, 0, 1, 2)
			total := int64(10 * concurrency)
			put := func(number int32, to int64) {
				all := records(b.partitions[number].next, to)
				for i := range all {
					all[i].Key = strconv.AppendInt(nil, random.Int64N(int64(4*concurrency)), 10)
				}
				b.put(number, all, to)
			}
			check := func() {
				t.Helper()
				b.mu.Lock()
				defer b.mu.Unlock()
				retries, placed := 0, 0
				for _, j := range b.begun {
					if j.placed {
						placed++
					}
					if j.placed && j.retry {
						retries++
					}
				}
				switch {
				case len(b.begun) > 2*concurrency || b.displaced > concurrency || b.running > concurrency:
					t.Fatalf("seed %d: %d tries run, %d have a place, %d lost it", seed, len(b.begun), b.running, b.displaced)
				case placed != b.running || placed+b.displaced != len(b.begun) || retries != b.retrying:
					t.Fatalf("seed %d: %d of %d tries with a place are counted, %d of %d retries", seed, b.running, placed, b.retrying, retries)
				}
				for _, p := range b.partitions {
					if n := len(p.progress.encode()); n > maxMetadata {
						t.Fatalf("seed %d: progress takes %d bytes", seed, n)
					}
					if b.places() > 0 && (p.mayRetry() && b.retrying < max(concurrency/2, 1) || len(p.ready) > 0 && p.room(p.ready[0].jobs[0])) {
						t.Fatalf("seed %d: %d places are free, and partition %d waits", seed, b.places(), p.number)
					}
				}
			}
			steps := 0
			for left := true; left; steps++ {
				if steps > 100_000 {
					t.Fatalf("seed %d: it does not end", seed)
				}
				number := random.Int32N(3)
				if p := b.partitions[number]; p.next < total && random.IntN(4) == 0 {
					put(number, min(total, p.next+random.Int64N(total/4)+1))
				}
				for range random.IntN(concurrency + 1) {
					b.mu.Lock()
					i := random.IntN(max(len(b.begun), 1))
					var j *job
					if i < len(b.begun) {
						j = b.begun[i]
					}
					b.mu.Unlock()
					if j == nil {
						break
					}
					switch random.IntN(6) {
					case 0, 1:
						b.goesOn(j)
						continue
					case 2:
						j.heard.Store(true)
						continue
					}
					b.mu.Lock()
					b.begun = slices.Delete(b.begun, i, i+1)
					b.mu.Unlock()
					b.returned(j)
					if steps < 200 && random.IntN(3) == 0 {
						b.failed(j, cause{}, again)
						b.park(j, time.Duration(random.IntN(20))*time.Second)
					} else {
						b.done(j)
					}
				}
				if random.IntN(3) == 0 {
					time.Sleep(time.Duration(random.IntN(8)) * time.Second)
					synctest.Wait()
				}
				check()
				left = false
				for _, p := range b.partitions {
					left = left || p.progress.base < total
				}
			}
			if b.running+b.ending+b.displaced+b.retrying+len(b.silent) != 0 {
				t.Errorf("seed %d: %d, %d, %d, %d and %d are left", seed, b.running, b.ending, b.displaced, b.retrying, len(b.silent))
			}
		})
	}
}
