package sim

import (
	"math"
	"math/rand/v2"
)

// Params are the same for all policies.
type Params struct {
	// Partitions of the topic.
	Partitions int
	// Max is the largest number of workers.
	Max int
	// Target is the drain target: a record is in time if a worker begins with
	// it no later than that after it came.
	Target float64
	// StartFrom and StartTo bound how long a worker takes to start, StopTime how
	// long to leave once it has finished its record.
	StartFrom, StartTo, StopTime float64
	// Pause is how long a rebalance stops all workers.
	Pause float64
	// Tick is the time between two looks at the world.
	Tick float64
}

// Defaults gives what the table is made with.
func Defaults() Params {
	return Params{Partitions: 96, Max: 48, Target: 10, StartFrom: 3, StartTo: 8, StopTime: 1, Pause: 2, Tick: 0.5}
}

// Policy says how many workers there should be.
type Policy interface {
	// Name is how the table calls it.
	Name() string
	// Workers is asked at each tick, and gives the number there should be.
	Workers(now float64, w *World) int
}

// World is the state that a policy looks at.
type World struct {
	Params
	trace   Trace
	logs    [][]record
	parts   []part
	workers []*worker
	asked   int // how many workers there should be
	pause   float64
	start   *rand.Rand

	busy   float64 // seconds worked
	square float64 // the sum of their squares
	done   int64
	result Result
	waits  int64 // records that count
	late   int64
}

// part is how far a partition has come.
type part struct {
	arrived, begun, done int
	freeAt               float64 // when the record in work is done
	movedAt              float64 // when it last moved, or nobody could have moved it
	working              bool
	tryAt                float64 // when the record that poisons it is tried again
	polled               int     // records that its worker has fetched and not begun with
}

// worker is one, from when it was asked for until it is gone.
type worker struct {
	readyAt, freeAt, goneAt float64
	joined, leaving         bool
	parts                   []int
}

// Result is what a run came to.
type Result struct {
	// InTime is the share of records that were begun within the target.
	InTime float64
	// WorkerSeconds is what was paid for: from asking for a worker until it is gone.
	WorkerSeconds float64
	// Work is the time that workers worked.
	Work float64
	// Changes counts how often another number was asked for, Reversals how often
	// that went the other way than the change before.
	Changes, Reversals int
	// Least is the smallest number asked for while the broker was away.
	Least int
	// Series is sampled every SampleEvery seconds.
	Series []Sample
}

// Sample is for plots.
type Sample struct{ Inflow, Backlog, Workers float64 }

// SampleEvery is the time between two samples.
const SampleEvery = 10

// run plays a policy against logs.
func run(p Params, tr Trace, logs [][]record, seed uint64, policy Policy) Result {
	w := &World{Params: p, trace: tr, logs: logs, parts: make([]part, p.Partitions), start: rand.New(rand.NewPCG(seed, 3))} //nolint:gosec // a simulation that can be repeated
	w.result.Least = math.MaxInt
	ticks := int(tr.Length / p.Tick)
	up, arrived := true, 0
	for i := range ticks {
		now := float64(i) * p.Tick
		w.settle(now)
		if want := min(max(policy.Workers(now, w), 0), p.Max); want != w.asked {
			w.result.Changes++
			if w.result.Changes > 1 && up != (want > w.asked) {
				w.result.Reversals++
			}
			up = want > w.asked
			w.ask(now, want)
		}
		if tr.out(now) {
			w.result.Least = min(w.result.Least, w.asked)
		} else {
			w.work(now, now+p.Tick)
		}
		w.result.WorkerSeconds += float64(len(w.workers)) * p.Tick
		if i%int(SampleEvery/p.Tick) == 0 {
			total := 0
			for _, part := range w.parts {
				total += part.arrived
			}
			w.result.Series = append(w.result.Series, Sample{float64(total-arrived) / SampleEvery, float64(w.Lag()), float64(w.asked)})
			arrived = total
		}
	}
	for i, part := range w.parts { // what nobody has begun with
		for _, r := range logs[i][part.begun:] {
			w.count(i, r.at, math.Inf(1))
		}
	}
	w.result.InTime = 1 - float64(w.late)/math.Max(1, float64(w.waits))
	w.result.Work = w.busy
	return w.result
}

// count takes a record that has waited into the result.
func (w *World) count(partition int, at, waited float64) {
	if w.trace.counts(partition, at, w.Target) {
		w.waits++
		if waited > w.Target {
			w.late++
		}
	}
}

// ask starts or stops workers: the youngest first, as the youngest may not run yet.
func (w *World) ask(now float64, want int) {
	for w.asked < want {
		w.asked++
		w.workers = append(w.workers, &worker{readyAt: now + w.StartFrom + (w.StartTo-w.StartFrom)*w.start.Float64(), goneAt: math.Inf(1)})
	}
	for i := len(w.workers) - 1; i >= 0 && w.asked > want; i-- {
		if at := w.workers[i]; !at.leaving {
			at.leaving = true
			at.goneAt = math.Max(now, at.freeAt) + w.StopTime
			w.asked--
		}
	}
}

// settle brings arrivals, and workers that came or went, up to a time.
func (w *World) settle(now float64) {
	idle := w.trace.out(now) || w.Ready() == 0
	for i := range w.parts {
		p := &w.parts[i]
		for p.arrived < len(w.logs[i]) && w.logs[i][p.arrived].at <= now {
			p.arrived++
		}
		if p.working && p.freeAt <= now {
			p.working, p.done, p.movedAt = false, p.begun, p.freeAt
		}
		if p.done == p.arrived || idle {
			p.movedAt = now
		}
	}
	changed := false
	kept := w.workers[:0]
	for _, at := range w.workers {
		switch {
		case at.leaving && (at.goneAt <= now || !at.joined):
			changed = changed || at.joined
			continue
		case !at.joined && at.readyAt <= now && !w.trace.out(now):
			at.joined, changed = true, true
		}
		kept = append(kept, at)
	}
	w.workers = kept
	if changed {
		w.rebalance(now)
	}
}

// rebalance shares the partitions and stops everybody for a while.
func (w *World) rebalance(now float64) {
	w.pause = now + w.Pause
	for i := range w.parts {
		w.parts[i].polled = 0
	}
	var members []*worker
	for _, at := range w.workers {
		at.parts = nil
		if at.joined && !at.leaving {
			members = append(members, at)
		}
	}
	if len(members) == 0 {
		return
	}
	for i := range w.parts {
		at := members[i*len(members)/w.Partitions]
		at.parts = append(at.parts, i)
	}
}

// work lets all workers work from one time to another.
func (w *World) work(from, to float64) {
	for _, at := range w.workers {
		if !at.joined || at.leaving {
			continue
		}
		at.freeAt = math.Max(at.freeAt, math.Max(from, w.pause))
		for at.freeAt < to {
			p, begin := w.next(at, to)
			if p < 0 {
				break
			}
			part := &w.parts[p]
			part.polled = max(0, part.polled-1)
			if w.trace.stuck(p, begin) { // another try, which fails
				at.freeAt, part.tryAt = begin+MeanService, begin+5
				continue
			}
			r := w.logs[p][part.begun]
			w.count(p, r.at, begin-r.at)
			part.begun++
			if part.working { // the one before is done
				part.done = part.begun - 1
			}
			part.working, part.freeAt = true, begin+r.service
			at.freeAt = part.freeAt
			w.busy += r.service
			w.square += r.service * r.service
			w.done++
		}
	}
}

// maxPoll is how many records of a partition a worker fetches at once. It goes
// through what it has fetched, oldest first, before it fetches again.
const maxPoll = 10

// next gives the partition of a worker whose record is next, or -1 if it cannot
// begin with one before a time.
func (w *World) next(at *worker, to float64) (partition int, begin float64) {
	if p, begin := w.fetched(at); p >= 0 {
		return p, begin
	}
	partition, begin = -1, to
	for _, p := range at.parts {
		part, log := &w.parts[p], w.logs[p]
		if part.begun == len(log) {
			continue
		}
		can := max(at.freeAt, log[part.begun].at, part.freeAt, part.tryAt)
		if can < begin {
			partition, begin = p, can
		}
		if can > at.freeAt {
			continue
		}
		for part.polled < maxPoll && part.begun+part.polled < len(log) && log[part.begun+part.polled].at <= at.freeAt {
			part.polled++
		}
		if w.trace.stuck(p, at.freeAt) {
			part.polled = 1
		}
	}
	if p, begin := w.fetched(at); p >= 0 {
		return p, begin
	}
	return partition, begin
}

// fetched gives the oldest record that a worker has fetched, or -1.
func (w *World) fetched(at *worker) (partition int, begin float64) {
	partition = -1
	oldest := math.Inf(1)
	for _, p := range at.parts {
		if part := &w.parts[p]; part.polled > 0 && w.logs[p][part.begun].at < oldest {
			partition, begin, oldest = p, max(at.freeAt, part.freeAt), w.logs[p][part.begun].at
		}
	}
	return partition, begin
}

// Lag counts the records that are not done.
func (w *World) Lag() int {
	lag := 0
	for _, p := range w.parts {
		lag += p.arrived - p.done
	}
	return lag
}

// Ready counts the workers that are members.
func (w *World) Ready() int {
	n := 0
	for _, at := range w.workers {
		if at.joined && !at.leaving {
			n++
		}
	}
	return n
}
