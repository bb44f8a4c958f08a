//go:build e2e

package deliver

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// found is what a check has counted.
type found struct {
	records, tries   int
	uncounted        int // tries whose end nobody had committed: the number came again
	effects, redone  int
	replied, failed  int
	later            int // ends on the reply topic behind the first of their stream
	dead, deadAgain  int
	both             int // replied first, and dead letters later
	overlaps         int
	unended          int // overlaps with a try that had no answer
	peak             int
	killed, stopped  int
	frozen           int
	evictions        int
	deepest, mostTry int // the highest number of a try, and the most tries of a record
}

func (c found) String() string {
	return fmt.Sprintf("%d records, %d tries (%d of them with a number that came again; at most %d of one record, the highest number %d), %d effects and %d repeated; "+
		"%d streams replied and %d failed, %d later ends; %d dead letters and %d repeated, %d of requests that were replied to; "+
		"%d processes killed, %d frozen, %d stopped, %d commits refused; %d overlaps (%d with a try that had no answer), at most %d tries of a process at once",
		c.records, c.tries, c.uncounted, c.mostTry, c.deepest, c.effects, c.redone,
		c.replied, c.failed, c.later, c.dead, c.deadAgain, c.both,
		c.killed, c.frozen, c.stopped, c.evictions, c.overlaps, c.unended, c.peak)
}

// check holds what the upstream has seen against what the topics hold:
//
//   - Each record's stream has an end, and each that has failed a dead letter
//     with the record as it was.
//   - A record was tried no more than attempts, and once more for each process
//     that was killed, frozen or evicted while it had the record; no try's number
//     is above attempts and the cuts that a record is allowed.
//   - What was first done of a key was done in the order of its records.
//
// gone names the processes that have left tries uncounted.
func (f *field) check(gone map[string]bool, c found) found {
	f.t.Helper()
	complaints := 0
	complain := func(format string, args ...any) {
		if complaints++; complaints <= 20 {
			f.t.Errorf(format, args...)
		}
	}
	c.records, c.evictions, c.peak = len(f.ids), f.evictions(), f.upstream.highest()
	ends := f.checkEnds(&c, complain)
	dead := f.checkDead(&c, complain)
	for n, id := range f.ids {
		switch end, letter := ends[id], dead[id]; {
		case end == "":
			complain("record %d has no end", n)
		case end == record.StateReplied && letter:
			c.both++
		case end == record.StateFailed && !letter:
			complain("record %d failed and has no dead letter", n)
		}
	}
	f.checkTries(&c, gone, ends, complain)
	if complaints > 20 {
		f.t.Errorf("and %d more", complaints-20)
	}
	return c
}

// checkEnds gives each stream's first end.
func (f *field) checkEnds(c *found, complain func(string, ...any)) map[string]record.State {
	ends := make(map[string]record.State)
	for _, rec := range f.read(testReplies) {
		reply, err := record.ParseReply(rec)
		if err != nil {
			complain("reply topic: %v", err)
			continue
		}
		if !reply.Terminal() {
			continue
		}
		if ends[reply.StreamID] != "" {
			c.later++
			continue
		}
		end := reply.End().Status
		if ends[reply.StreamID] = end; end == record.StateReplied {
			c.replied++
		} else {
			c.failed++
		}
	}
	return ends
}

// checkDead tells for which streams there are dead letters.
func (f *field) checkDead(c *found, complain func(string, ...any)) map[string]bool {
	dead := make(map[string]bool)
	for _, rec := range f.read(testDead) {
		request, err := record.ParseRequest(rec)
		if err != nil {
			complain("dead letter: %v", err)
			continue
		}
		n, err := numberOf(request.Path)
		attempts, _ := rec.Header(HeaderDeadAttempts)
		if err != nil || request.StreamID != f.ids[n] || string(rec.Key) != f.keys[n] || !bytes.Equal(rec.Value, []byte("order "+strconv.Itoa(n))) ||
			string(attempts) != strconv.Itoa(f.order.Attempts) {
			complain("dead letter of %s after %s tries: key %q, value %q: %v", request.Path, attempts, rec.Key, rec.Value, err)
		}
		if dead[request.StreamID] {
			c.deadAgain++
			continue
		}
		dead[request.StreamID] = true
		c.dead++
	}
	return dead
}

// checkTries looks at how often and in which order the records were tried.
func (f *field) checkTries(c *found, gone map[string]bool, ends map[string]record.State, complain func(string, ...any)) {
	f.upstream.mu.Lock()
	defer f.upstream.mu.Unlock()
	c.overlaps, c.unended = f.upstream.overlaps, f.upstream.unended
	latest := make(map[string]int64) // key → when the last of its records was first done
	for n := range f.ids {
		tries := f.upstream.tries[n]
		c.tries += len(tries)
		c.mostTry = max(c.mostTry, len(tries))
		numbers, leavers := make(map[int]bool), make(map[string]bool)
		var first int64
		for _, try := range tries {
			if c.deepest = max(c.deepest, try.attempt); try.attempt > f.order.Attempts+maxCuts {
				complain("record %d: try %d of %d", n, try.attempt, f.order.Attempts)
			}
			if numbers[try.attempt] {
				c.uncounted++
			}
			numbers[try.attempt] = true
			if gone[try.member] {
				leavers[try.member] = true
			}
			switch {
			case try.effect == 0:
			case first == 0:
				first = try.effect
				c.effects++
			default:
				c.redone++
			}
		}
		if len(tries) > f.order.Attempts+len(leavers) {
			complain("record %d was tried %d times, with %d of them by processes that are gone", n, len(tries), len(leavers))
		}
		if extra := len(tries) - len(numbers); extra > len(leavers) {
			complain("record %d: %d tries have a number that was given before, with %d processes gone", n, extra, len(leavers))
		}
		if ends[f.ids[n]] == record.StateReplied && first == 0 {
			complain("record %d was replied to and never done", n)
		}
		if key := f.keys[n]; key != "" && first > 0 {
			if first < latest[key] {
				complain("%s: record %d was done before the one that precedes it", key, n)
			}
			latest[key] = first
		}
	}
}
