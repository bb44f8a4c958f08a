package autoscale

// Unknown stands for a count or an offset that nobody could tell. It is never 0.
const Unknown = -1

// Offsets is what a broker says of one partition and one consumer group.
type Offsets struct {
	// Incarnation tells a topic from another one of the same name that was
	// made after it was deleted: its topic id. Empty if not known.
	Incarnation string
	// Start is the offset of the oldest record that retention has left, End the
	// one that the next record will get. Unknown while the partition has no
	// leader or the broker does not answer.
	Start, End int64
	// Committed is where the group goes on, Unknown if it has committed nothing.
	Committed int64
	// CommitUnread says that the broker did not tell the commit, as opposed to
	// telling that there is none.
	CommitUnread bool
	// FromLatest says that the group's consumers begin at the end where nothing
	// is committed, instead of at the oldest record.
	FromLatest bool
	// Holes counts the offsets from where the group goes on to End that hold no
	// record for it: transaction markers, aborted records, what compaction took.
	// 0 if nobody has looked.
	Holes int64

	firstEnd int64 // End when the incarnation was first looked at, where seen
	seen     bool
	stale    int64 // a commit left from an older incarnation, where isStale
	isStale  bool
}

// After sets a reading against the one before it, so that Lag can tell a topic
// that starts anew from a broker that has lost its memory. The result is what
// the next reading comes after; if it is not Known, the one before stays that.
func (o Offsets) After(before Offsets) Offsets {
	if o.another(before) {
		// All there is waits, whatever the group has committed on the old topic.
		o.seen, o.firstEnd = true, 0
		o.isStale, o.stale = o.Committed >= 0, o.Committed
		if o.Committed != before.Committed && o.Committed <= o.End {
			o.isStale = false // it has moved since: the group is at work on the new one
		}
		return o
	}
	if o.Incarnation == "" {
		o.Incarnation = before.Incarnation // brokers before Kafka 2.8 do not tell it
	}
	o.isStale, o.stale = before.isStale && o.Committed == before.stale, before.stale
	if o.seen, o.firstEnd = true, before.End; before.seen {
		o.firstEnd = before.firstEnd
	}
	// Offsets of one topic never go back. If they do, another or an emptied
	// broker answers, and its 0 says nothing of the records.
	if o.End < before.End {
		o.Start, o.End = Unknown, Unknown
	}
	// The same for a commit: one that expired says what was done before.
	if o.Committed == Unknown && before.Committed >= 0 && !before.isStale {
		o.firstEnd = before.Committed
	}
	return o
}

// another tells whether a reading is known to be of another topic than the one before.
func (o Offsets) another(before Offsets) bool {
	return o.Incarnation != "" && before.Incarnation != "" && o.Incarnation != before.Incarnation
}

// Known tells whether a reading says anything.
func (o Offsets) Known() bool {
	return o.Start >= 0 && o.End >= o.Start && !o.CommitUnread
}

// Lag counts the records of a partition that wait for the group, or gives
// Unknown. It is pure.
func (o Offsets) Lag() int64 {
	if !o.Known() {
		return Unknown
	}
	from := o.Committed
	switch {
	case from >= 0 && !(o.isStale && from == o.stale):
		if from > o.End {
			return Unknown // a commit on records that this broker does not have
		}
	case !o.FromLatest:
		from = o.Start
	case o.seen:
		// Its consumers begin at the end when they come: what was there before
		// anybody looked is not meant for them.
		from = o.firstEnd
	default:
		return Unknown
	}
	return max(0, o.End-max(from, o.Start)-max(0, o.Holes))
}
