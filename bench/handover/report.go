package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/bench/rig"
)

// window is a stretch of time.
type window struct {
	name     string
	from, to time.Time
}

func (w window) has(at time.Time) bool { return !at.Before(w.from) && at.Before(w.to) }

// wait is that of a quick request: from when the broker has it until its try begins.
type wait struct {
	partition int32
	acked     time.Time
	try
}

// figures are those of all windows of one name.
type figures struct {
	waits []time.Duration
	// moved is the longest standstill of a partition that changed hands, stayed that
	// of any other.
	moved, stayed time.Duration
}

func (f *figures) add(w window, waits []wait, stills []standstill) {
	by := make(map[int32]string)
	moved := make(map[int32]bool)
	for _, q := range waits {
		if !w.has(q.acked) {
			continue
		}
		f.waits = append(f.waits, q.began.Sub(q.acked))
		if was, ok := by[q.partition]; ok && was != q.by {
			moved[q.partition] = true
		}
		by[q.partition] = q.by
	}
	for _, s := range stills {
		switch {
		case !w.has(s.from):
		case moved[s.partition]:
			f.moved = max(f.moved, s.to.Sub(s.from))
		default:
			f.stayed = max(f.stayed, s.to.Sub(s.from))
		}
	}
}

// report prints the figures, and fails if a long try was lost.
func (b *bench) report() error {
	if err := b.keepLogs(); err != nil {
		return err
	}
	waits, err := b.traffic.waits()
	if err != nil {
		return err
	}
	stills := standstills(waits)
	of := make(map[string]*figures)
	var names []string
	for _, w := range b.windows {
		if of[w.name] == nil {
			of[w.name] = new(figures)
			names = append(names, w.name)
		}
		of[w.name].add(w, waits, stills)
	}
	t := rig.Table{Head: []string{"", "requests", "p50", "p99", "max", "p99 − calm's", "standstill, moved", "standstill, stayed"}}
	for _, name := range names {
		f := of[name]
		p99, rise, moved := rig.Quantile(f.waits, 0.99), "–", "–"
		if quiet := of[calmBefore+name]; quiet != nil {
			rise, moved = rig.Millis(p99-rig.Quantile(quiet.waits, 0.99)), rig.Millis(f.moved)
		}
		t.Add(name, len(f.waits), rig.Millis(rig.Median(f.waits)), rig.Millis(p99), rig.Millis(rig.Quantile(f.waits, 1)), rise, moved, rig.Millis(f.stayed))
	}
	lost := b.site.lost()
	t.Write(b.Out, fmt.Sprintf("%d partitions, %d members, %d long tries of %s, %d quick requests a second", *partitions, *members, *jobs, *long, *quick))
	fmt.Fprintf(b.Out, "Of the long tries, while members joined and left, %d were cut and %d repeated.\n", lost.cut, lost.repeated)
	if lost.cut+lost.repeated > 0 {
		return errors.New("long tries were lost")
	}
	return nil
}

// standstill is a stretch in which a partition had quick requests and none of them
// began.
type standstill struct {
	partition int32
	from, to  time.Time
}

// standstills gives those between any two tries.
func standstills(waits []wait) []standstill {
	type change struct {
		at   time.Time
		more int
	}
	changes := make(map[int32][]change)
	for _, q := range waits {
		changes[q.partition] = append(changes[q.partition], change{q.acked, 1}, change{q.began, -1})
	}
	var all []standstill
	for number, list := range changes {
		slices.SortStableFunc(list, func(a, b change) int { return a.at.Compare(b.at) })
		waiting, since := 0, time.Time{}
		for _, c := range list {
			if waiting > 0 && c.more < 0 {
				all = append(all, standstill{number, since, c.at})
			}
			if waiting == 0 || c.more < 0 {
				since = c.at
			}
			waiting += c.more
		}
	}
	return all
}

// keepLogs writes what the members have logged where it was asked for.
func (b *bench) keepLogs() error {
	if *logs == "" {
		return nil
	}
	for _, m := range b.all {
		if err := os.WriteFile(filepath.Join(*logs, m.Name+".log"), []byte(m.Log()), 0o600); err != nil {
			return fmt.Errorf("keep a log: %w", err)
		}
	}
	return nil
}
