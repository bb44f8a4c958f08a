package autoscale

import (
	"slices"
	"time"
)

// Measurement is one look at a topic and a group.
type Measurement struct {
	// At is when, by the clock that every look is told by.
	At time.Time
	// Workers is how many were running.
	Workers int
	// WorkTime is how long a worker works on a record, on average; 0 if unknown.
	WorkTime time.Duration
	// WorkSpread is how much that varies: its standard deviation over its mean. 0
	// if unknown, and taken for 1.
	WorkSpread float64
	// Keys is how many different keys wait or are worked on, where Config.Keyed
	// is set; Unknown for no bound.
	Keys int
	// Oldest is for how long the oldest record has waited, 0 if none does,
	// Unknown if it cannot be told.
	Oldest time.Duration
	// Members is how many members the consumer group has, Unknown if it cannot be told.
	Members int
	// Partitions are all of the topic's, by their number.
	Partitions []Partition
}

// Partition is what was seen of one.
type Partition struct {
	// Backlog counts the records that are not done, Unknown if it cannot be
	// told. Those that are being worked on count.
	Backlog int64
	// Produced and Done count up: where the log ends, how far the group has
	// come. Only differences are used. Unknown if they cannot be told.
	Produced, Done int64
	// Stalled is how long nothing was done although records waited and a worker
	// had the partition.
	Stalled time.Duration
	// Lost counts the members that had the partition and have left the group since
	// something was done in it.
	Lost int
	// Poisoned says that a record is known to be failing in it again and again.
	Poisoned bool
	// Paused says that its consumption was stopped on purpose.
	Paused bool
	// Elsewhere says that other processes work on it, which decide for themselves.
	Elsewhere bool
}

// History is what a decision is made from. Its zero value is empty.
type History struct {
	// Looks are measurements, oldest first. Neither they nor their partitions
	// are changed by anything here.
	Looks []Measurement
	// Decisions are the ones made, oldest first: the last one, those that still
	// count for the pace down, and those that changed something in the last hour.
	Decisions []Decision
}

// spans are what rates are looked at over, next to the time since the last look.
var spans = []time.Duration{
	time.Second, 2 * time.Second, 3 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second,
	80 * time.Second, 160 * time.Second, 320 * time.Second,
}

// Look adds a measurement, and drops those that no rate is told from any more:
// of older ones few are enough.
func (h *History) Look(m Measurement) {
	h.Looks = append(h.Looks, m)
	recent, oldest := 10*time.Second, spans[len(spans)-1]
	kept := time.Time{}
	h.Looks = slices.DeleteFunc(h.Looks, func(look Measurement) bool {
		age := m.At.Sub(look.At)
		if age <= recent {
			return false
		}
		if age > oldest+oldest/4 || look.At.Sub(kept) < max(recent/2, age/8) {
			return true
		}
		kept = look.At
		return false
	})
}

// Decided adds a decision, and drops those that do not count any more.
func (h *History) Decided(c Config, d Decision) {
	c = c.withDefaults()
	h.Decisions = slices.DeleteFunc(append(h.Decisions, d), func(old Decision) bool {
		age := d.At.Sub(old.At)
		changed := old.Workers != old.From
		return age > mostPatient*c.DownAfter && (!changed || age >= time.Hour) && old.At.Before(d.At)
	})
}

// lastChange gives the last decision that changed the number, nil if none is known.
func (h *History) lastChange(of func(Decision) bool) *Decision {
	for i := range slices.Backward(h.Decisions) {
		if d := &h.Decisions[i]; d.Workers != d.From && of(*d) {
			return d
		}
	}
	return nil
}

// wokenAt is when the number was last raised from zero: at the last look, if there
// was nobody until then. It is the zero time if that is not known.
func (h *History) wokenAt() time.Time {
	if n := len(h.Decisions); n > 0 && h.Decisions[n-1].Workers == 0 {
		return h.Looks[len(h.Looks)-1].At
	}
	if d := h.lastChange(func(d Decision) bool { return d.From == 0 }); d != nil {
		return d.At
	}
	return time.Time{}
}

// since gives the looks from a time on, at least the last one.
func (h *History) since(at time.Time) []Measurement {
	for i, look := range h.Looks {
		if !look.At.Before(at) {
			return h.Looks[i:]
		}
	}
	return h.Looks[len(h.Looks)-1:]
}
