package autoscale

import (
	"slices"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker"
)

// lowerFor is how long a partition must end lower than it did until that is
// believed: then records were lost, and no other broker is going to tell of them.
const lowerFor = 10 * time.Minute

// part is a partition as a group stands in it.
type part struct {
	// What the coordinator says at this look.
	committed int64
	metadata  string
	unread    bool

	last  Offsets // as known last
	seen  bool
	log   Offsets   // the same, but for the commit, which may not have been told
	lower time.Time // since when the end is lower than that, zero if it is not

	// What the last look came to.
	lag      int64 // by offsets, less what is done ahead and what waits to be tried again; Unknown
	from     int64 // where the group goes on
	at       int64 // and how many records ahead of that are done
	produced int64 // counts up; Unknown before anything was known
	done     int64
	told     bool  // the end is known
	worked   bool  // something was done since the look before
	least    int64 // of what waits, whatever the holes
	still    int   // looks since anything moved

	holes   holes
	owned   bool   // a member has it
	owner   string // who has it, or had it last
	lost    int    // members that had it, and have left the group since something was done
	tried   bool   // one has had it since something was done
	stalled time.Duration
	read    time.Time // when it was known last
	aged    int64     // the offset whose time was asked for last, plus one
}

// expect makes parts for the topic's partitions, of which nothing is told yet.
func (w *Watch) expect() {
	if w.topic.err == nil {
		for len(w.parts) < len(w.topic.ends) {
			w.parts = append(w.parts, part{produced: Unknown, done: Unknown, lag: Unknown})
		}
		w.parts = w.parts[:len(w.topic.ends)]
	}
	for i := range w.parts {
		p := &w.parts[i]
		p.committed, p.metadata, p.unread = Unknown, "", true
	}
}

// read works out what the look says of each partition.
func (w *Watch) read(now time.Time) {
	for i := range w.parts {
		p := &w.parts[i]
		o := Offsets{Start: Unknown, End: Unknown, Committed: p.committed, CommitUnread: p.unread, FromLatest: w.of.FromLatest}
		if i < len(w.topic.ends) {
			o.Start, o.End, o.Incarnation = w.topic.ends[i].start, w.topic.ends[i].end, w.topic.text
		}
		if p.take(o, w.survey.config.Ahead, now) {
			w.topic.ends[i].ages = ages{}
			w.topic.ends[i].ages.add(o.End, now)
		}
	}
}

// take takes in a reading. It tells whether the log is believed to have been cut off.
func (p *part) take(o Offsets, ahead func(int64, string) (int64, int64), now time.Time) (cut bool) {
	raw := o
	switch {
	case p.seen:
		o = raw.After(p.last)
	case o.FromLatest:
		o = raw.After(raw) // what is there was not meant for the group
	}
	p.told, p.lag = false, Unknown
	if p.seen && o.End == Unknown && raw.End >= 0 { // it went back
		if p.lower.IsZero() {
			p.lower = now
		}
		if now.Sub(p.lower) < lowerFor || !raw.Known() {
			return false
		}
		o, cut = raw, true
		if o.FromLatest {
			o = raw.After(raw)
		}
	}
	if o.Start < 0 || o.End < o.Start {
		return false
	}
	p.count(o, cut)
	if !o.Known() {
		return cut
	}
	same := p.seen && !cut && !o.another(p.last)
	moved := !same || o.End != p.last.End
	p.last, p.seen = o, true
	lag := o.Lag()
	if lag == Unknown {
		return cut
	}
	p.from = o.End - lag
	var done, waiting int64
	if o.Committed == p.from && !p.unread { // and not a commit that does not count
		done, waiting = ahead(o.Committed, p.metadata)
		done, waiting = min(done, lag), min(waiting, lag-min(done, lag))
	}
	p.worked = !same
	before, at := p.at, p.from+done
	if p.at = at; p.done == Unknown {
		p.done, before = at, at
	} else if !same {
		before = o.Start
	}
	// What retention took was not done.
	if n := at - max(before, o.Start); n > 0 {
		p.done += n
		p.worked, moved = true, true
	}
	p.lag, p.least = lag-done-waiting, min(waiting, 1) // somebody must be there to try again
	if p.still++; moved {
		p.still = 0
	}
	return cut
}

// count counts what has come.
func (p *part) count(o Offsets, cut bool) {
	switch {
	case p.produced == Unknown:
		p.produced = o.End
	case cut:
	case !o.another(p.log):
		p.produced += max(0, o.End-p.log.End)
	default:
		p.produced += o.End
	}
	p.log, p.told, p.lower = o, true, time.Time{}
}

// backlog counts the records that are really there and wait.
func (p *part) backlog() int64 {
	if p.lag == Unknown {
		return Unknown
	}
	return max(p.least, p.lag-p.holes.before(p.from, p.last.End))
}

// stall counts for how long nothing was done although records wait and somebody
// has the partition. While members share out anew, nobody has it: that counts if one
// had it before, for where each that gets a record dies of it, they do little else.
// What is nobody's in a group that stands, or that has no member, is left alone.
func (p *part) stall(now time.Time, g *group) {
	p.tried = p.tried || p.owned
	switch {
	case p.backlog() == 0 || p.worked:
		p.stalled, p.tried, p.lost = 0, p.owned, 0
	case p.read.IsZero():
	case p.owned, p.tried && !g.stable && g.members > 0:
		p.stalled += now.Sub(p.read)
	}
	p.read = now
}

// assigned takes in what the members of the group have.
func (w *Watch) assigned(members []broker.Member, stable bool) {
	for i := range w.parts {
		p := &w.parts[i]
		p.owned = false
		if p.owner != "" && len(members) > 0 && !slices.ContainsFunc(members, func(m broker.Member) bool { return m.ID == p.owner }) {
			p.owner = ""
			p.lost++
		}
	}
	owned := make(map[string][]int32)
	for _, m := range members {
		if !stable {
			break
		}
		for _, t := range m.Assigned {
			if t.Topic != w.of.Topic && (t.Topic != "" || t.ID != w.topic.led.ID) {
				continue
			}
			owned[m.ID] = slices.Clone(t.Partitions)
			for _, number := range t.Partitions {
				if number >= 0 && int(number) < len(w.parts) {
					w.parts[number].owned, w.parts[number].owner = true, m.ID
				}
			}
		}
	}
	w.effort.assigned(owned)
}

// wantsMembers tells whether it matters now who is in the group.
func (w *Watch) wantsMembers() bool {
	if w.effort.workTime() > 0 && w.group.members != 0 {
		return false
	}
	return slices.ContainsFunc(w.parts, func(p part) bool { return p.backlog() > 0 })
}

// measure gives the look as who decides wants it.
func (w *Watch) measure(now time.Time) Measurement {
	w.at = now
	m := Measurement{At: now, Keys: Unknown, Members: w.group.members}
	if w.topic.gone {
		// There is nothing, and that is known: one empty partition says so.
		nothing := Partition{}
		if len(w.parts) > 0 {
			nothing.Produced, nothing.Done = max(0, w.parts[0].produced), max(0, w.parts[0].done)
		}
		m.Partitions = []Partition{nothing}
		m.WorkTime = w.effort.workTime()
		return m
	}
	m.Partitions = make([]Partition, len(w.parts))
	w.effort.begin(now)
	known := false
	for i := range w.parts {
		p := &w.parts[i]
		out := &m.Partitions[i]
		out.Backlog, out.Produced, out.Done = p.backlog(), Unknown, Unknown
		if p.told {
			out.Produced = p.produced
		}
		if out.Backlog >= 0 {
			out.Done = p.done
			known = true
			m.Oldest = max(m.Oldest, w.age(i, now))
			p.stall(now, w.group)
		}
		out.Stalled, out.Lost = p.stalled, p.lost
		w.effort.partition(out.Backlog, p.done)
	}
	w.effort.end()
	if !known {
		m.Oldest = Unknown
	}
	m.WorkTime = w.effort.workTime()
	return m
}
