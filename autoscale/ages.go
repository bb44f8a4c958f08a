package autoscale

import (
	"cmp"
	"slices"
	"time"
)

// ages tells when a partition's records came: it remembers where the log ended at
// some times. Its zero value is empty.
type ages struct{ marks []mark } // by end, and by time

// mark is an end of the log, and from when to when it was seen.
type mark struct {
	end      int64
	from, to time.Time
}

// maxMarks bounds what is remembered of a partition.
const maxMarks = 64

// add remembers that the log ends there now.
func (a *ages) add(end int64, now time.Time) {
	if n := len(a.marks); n > 0 {
		last := &a.marks[n-1]
		if end == last.end {
			last.to = now
		}
		if end <= last.end {
			return
		}
	}
	a.room()
	a.marks = append(a.marks, mark{end, now, now})
}

// insert remembers when the record at an offset came.
func (a *ages) insert(offset int64, at time.Time) {
	a.room()
	i, found := slices.BinarySearchFunc(a.marks, offset, func(m mark, end int64) int { return cmp.Compare(m.end, end) })
	if found {
		return
	}
	if i < len(a.marks) && at.After(a.marks[i].from) {
		at = a.marks[i].from
	}
	if i > 0 && at.Before(a.marks[i-1].to) {
		at = a.marks[i-1].to
	}
	a.marks = slices.Insert(a.marks, i, mark{offset, at, at})
	if i+1 == len(a.marks) || a.marks[i+1].end > offset+1 {
		a.marks = slices.Insert(a.marks, i+1, mark{offset + 1, at, at})
	}
}

// room drops every other mark of the older half, where there are too many.
func (a *ages) room() {
	if len(a.marks) < maxMarks {
		return
	}
	n := 0
	a.marks = slices.DeleteFunc(a.marks, func(mark) bool {
		n++
		return n <= maxMarks/2 && n%2 == 0
	})
}

// when tells when the record at an offset came, and by how much that may be wrong.
// Where it is not known at all, it came before the time given.
func (a *ages) when(offset int64) (at time.Time, slack time.Duration, known bool) {
	i := slices.IndexFunc(a.marks, func(m mark) bool { return m.end > offset })
	switch {
	case i < 0:
		return time.Time{}, 0, false
	case i == 0:
		return a.marks[0].from, 0, false
	}
	before, after := a.marks[i-1], a.marks[i]
	slack = after.from.Sub(before.to)
	part := float64(offset-before.end) / float64(after.end-before.end)
	return before.to.Add(time.Duration(part * float64(slack))), slack, true
}

// age tells for how long the oldest record of a partition has waited.
func (w *Watch) age(partition int, now time.Time) time.Duration {
	p := &w.parts[partition]
	if p.backlog() <= 0 {
		return 0
	}
	at, _, _ := w.topic.ends[partition].ages.when(p.from)
	if at.IsZero() {
		return 0
	}
	return max(0, now.Sub(at))
}

// vague tells whether the age of the oldest record is to be asked for.
func (w *Watch) vague(partition int, now time.Time) bool {
	p := &w.parts[partition]
	if p.backlog() <= 0 || p.aged == p.from+1 {
		return false
	}
	at, slack, known := w.topic.ends[partition].ages.when(p.from)
	const fine, share = 10 * time.Second, 4
	return !known || slack > max(fine, now.Sub(at)/share)
}
