package hub

import "github.com/osmosis-gateway/caddy-osmosis/record"

// leg is a subscription's way through one partition. A stream has one, or two
// where the reply topic has grown since its token was made: a worker that places
// by the stream id then answers in another partition than one that follows
// kafka_replyPartition.
type leg struct {
	reader reader
	phase  phase
	start  beginning
	// byTime says that the stream's floor in this partition is not known and is
	// looked for by the time of its token.
	byTime bool
	// since is the hub's clock when floor and cursor were known: an end of the log
	// that was asked for earlier may lie below them.
	since uint64

	// gap is held back until it is known whether the stream's end is in what is
	// left of the log. From then on that is read again; passed counts the replies
	// that were not given meanwhile.
	gap    *record.Gap
	left   int64 // where what is left begins
	passed int

	// end is the stream's end, which waits for the other leg, see concluded.
	end *Entry

	// latest is the part of an answer that was given last.
	latest answerPart

	live target // what the log held when the subscription began
	last target // what it held when the stream had expired
}

type phase uint8

const (
	placing   phase = iota // where to begin is not decided yet
	verifying              // the record at the client's cursor is to be checked
	doubting               // the client says that the stream expired, which is to be checked
	reading
)

// target is an offset to read up to: the end of a log, as told by an answer to
// a question asked after a tick.
type target struct {
	known bool
	at    int64
}

// aim sets the target once the log's end is known as of tick. With settled set,
// a transaction that was open then is not waited for.
func (t *target) aim(log ends, tick uint64, settled bool) {
	if !t.known && log.known && log.high.after(tick) {
		*t = target{true, log.high.at}
	}
	if settled && log.known && log.stable.after(tick) && (!t.known || log.stable.at < t.at) {
		*t = target{true, log.stable.at}
	}
}

// reached tells whether the leg has seen all that the log held when the
// subscription began. Ask after a read that gave nothing.
func (l *leg) reached(tick uint64) bool {
	return l.seen(&l.live, tick, true)
}

// exhausted is reached for a tick taken when the stream had expired. It waits
// for open transactions, since a reply in one may have been written in time.
func (l *leg) exhausted(tick uint64) bool {
	return l.seen(&l.last, tick, false)
}

func (l *leg) seen(t *target, tick uint64, settled bool) bool {
	at, log := l.reader.standing()
	t.aim(log, tick, settled)
	if t.known && at >= t.at {
		return true
	}
	l.reader.await(tick)
	return false
}

// cursor names an offset of the leg's partition.
func (l *leg) cursor(at int64) Cursor {
	p := l.reader.partition
	return Cursor{Incarnation: p.incarnation, Partition: p.index, Offset: at}
}

// holdBack keeps a gap until it is known whether to tell it. A second one
// within the first makes it longer.
func (l *leg) holdBack(from, to int64) {
	if l.gap == nil {
		l.gap = &record.Gap{From: l.cursor(from).String(), Reason: gapRetention}
	}
	l.gap.To = l.cursor(to).String()
	l.left, l.passed = to, 0
}

// maxPassed is how many replies are looked at for the end that would make a gap
// no news.
const maxPassed = 64

// release ends the time in which the gap is held back: what is left of the log is read again.
func (l *leg) release() {
	l.gap = nil
	l.reader.goBack(l.left)
}
