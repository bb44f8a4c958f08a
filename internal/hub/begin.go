package hub

// The reasons of a gap, as clients read them.
const (
	gapCursor    = "cursor"
	gapRetention = "retention"
	gapTruncated = "truncated"
	gapRecreated = "recreated"
)

// bounds is where a log can be read.
type bounds struct {
	start, end int64
	// fresh says that the end was asked for after the stream was; an older one
	// may lie before what the stream knows from elsewhere.
	fresh bool
}

// beginning is what is known of where a stream begins in one partition.
type beginning struct {
	// floor is the offset below which there is nothing of the stream; logStart
	// where that is not known.
	floor int64
	// cursor is the offset of the record that the client has read last; noCursor without one.
	cursor int64
}

const (
	logStart int64 = -1
	noCursor int64 = -1
)

// landing is where to read from.
type landing struct {
	at int64
	// gap is the reason of a gap to tell, "" for none.
	gap string
	// held says that the gap is told only if the stream's end is not found in
	// what is left of the log.
	held bool
	// verify says that the record at this offset is the client's last, and must
	// be checked to be of this stream.
	verify bool
	// ask says that nothing can be said before the log's end was asked for.
	ask bool
}

// land decides where to begin. The floor is a promise of another gateway, and
// the cursor came through the client, so neither need lie within the log:
//
//	cursor below the floor               → gap cursor, from the floor
//	cursor below the log's start         → gap retention (held), from the log's start
//	cursor at or above the log's end     → gap cursor, from the floor
//	cursor within the log                → verify it
//	no cursor, floor below the start     → gap retention (held), from the log's start
//	no cursor, floor above the end       → gap truncated, from the log's start
//	no cursor, floor within the log      → from the floor
//
// A cursor above the end may be made up, or all that is left of records that
// brokers have lost. Nobody can tell by the cursor, which any client can write;
// a floor is sealed in its token, so that one above the end does tell.
//
// A client that reads again from the floor gets events that it may have seen,
// with the ids that they had.
func (b beginning) land(log bounds) landing {
	if b.cursor != noCursor {
		switch {
		case b.cursor >= log.end && !log.fresh:
			return landing{ask: true}
		case b.cursor < b.floor, b.cursor >= log.end:
			l := b.fromFloor(log)
			if l.held || l.gap == "" {
				l.gap, l.held = gapCursor, false
			}
			return l
		case b.cursor < log.start:
			return landing{at: log.start, gap: gapRetention, held: true}
		}
		return landing{at: b.cursor, verify: true}
	}
	return b.fromFloor(log)
}

func (b beginning) fromFloor(log bounds) landing {
	switch {
	case b.floor == logStart:
		return landing{at: log.start}
	case b.floor < log.start:
		return landing{at: log.start, gap: gapRetention, held: true}
	case b.floor > log.end && !log.fresh:
		return landing{ask: true}
	case b.floor > log.end:
		return landing{at: log.start, gap: gapTruncated}
	}
	return landing{at: b.floor}
}
