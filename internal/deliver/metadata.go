package deliver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// The text begins with its version. What follows is base64url of a checksum and,
// as varints where nothing else is said:
//
//	checksum, 4 bytes; incarnation, 4 bytes; owner, 8 bytes; base
//	the runs that have handed tries over: how many, 8 bytes each
//	the causes of failures: how many, each a code, a length and a text
//	what the times of next tries count from, in Unix seconds
//	what is done: how many ranges, each the distance from the last one and a length
//	tries: how many records, each the distance from the last one and a past
const (
	metadataVersion = "osmosis2:"
	headerSize      = len(metadataVersion) + (4+4+8+8+6*binary.MaxVarintLen64)*4/3 + 2
)

// A past begins with a byte: two bits of the failed tries, two marks, and what
// follows.
const (
	lowFailed  = 3
	isStarted  = 1 << 2
	isGivenUp  = 1 << 3
	hasDue     = 1 << 4 // the seconds until the next try
	hasCause   = 1 << 5 // the place of its cause among the causes
	hasRun     = 1 << 6 // the place among the runs of the one that has it, from 1; 0 for the owner's own try
	hasMore    = 1 << 7 // a second word: two bits of cuts, the rest of the failed tries
	failedBits = 2
	cutBits    = 2
)

const (
	// The end of one try adds numbers to the encoded progress: a stretch that is
	// not done is split in two, or a past comes in. That takes a distance, a byte,
	// and another one where the try is handed over or cut short. A distance takes
	// three bytes at most. A past that is there already grows by two bytes at most.
	minStep = 3
	maxStep = 5
	// maxNumber bounds the numbers in it, but for the base: a hole in the log may
	// be longer than maxAhead. Each takes six bytes at most.
	maxNumber = 1 << 40
	maxEntry  = 2 * 6 * 4 / 3
)

// Causes are told with the tries as far as there is room.
const (
	maxCauses    = 8   // different ones with a text
	maxCauseText = 160 // bytes of a text
	maxCode      = 1 << 16
)

// detail is how much is told of tries beside their number and marks.
type detail int

const (
	noDetail detail = iota
	dueOnly
	dueAndCode
	allDetail
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fits reports whether the progress will still fit into a commit's metadata when
// so many more tries of records before an offset have ended, however they end.
// The first record that is not done may always be tried, or nothing would ever
// become shorter again; its share is part of the bound.
func (p *progress) fits(tries int, before int64) bool {
	// Numbers that follow each other add up to no more than the distance to the
	// last, so few of them can be large: of done and of tries, one for each 127.
	large := 2 * int((before-p.base)/127+1)
	bytes := min(maxStep*(tries+1), minStep*(tries+1)+large)
	budget := maxMetadata - (bytes*4+2)/3
	if headerSize+maxEntry*(len(p.done)+2*len(p.tries)) <= budget {
		return true // as nearly always, and without looking closer
	}
	if p.size == 0 {
		p.size = len(p.encodeWith(noDetail))
	}
	return p.size <= budget
}

// encode gives the metadata to commit with base. Equal progress is equal text.
// What does not fit is left out: first why tries failed, then when they may be
// repeated. The number of tries and what is done always fit, see fits.
func (p *progress) encode() string {
	for d := allDetail; d > noDetail; d-- {
		if text := p.encodeWith(d); len(text) <= maxMetadata {
			return text
		}
	}
	return p.encodeWith(noDetail)
}

func (p *progress) encodeWith(d detail) string {
	offsets := make([]int64, 0, len(p.tries))
	for offset := range p.tries {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	var w writer
	w.b = make([]byte, 4, 64+4*(len(p.done)+len(p.tries)))
	w.b = binary.BigEndian.AppendUint32(w.b, p.incarnation)
	w.b = append(w.b, p.owner[:]...)
	w.number(p.base)
	runs, causes, from := p.tables(offsets, d)
	w.number(int64(len(runs)))
	for _, r := range runs {
		w.b = append(w.b, r[:]...)
	}
	w.number(int64(len(causes)))
	for _, c := range causes {
		w.number(int64(c.code))
		w.number(int64(len(c.reason)))
		w.b = append(w.b, c.reason...)
	}
	w.number(from)
	w.number(int64(len(p.done)))
	at := p.base
	for _, s := range p.done {
		w.number(s.from - at)
		w.number(s.to - s.from)
		at = s.to
	}
	w.number(int64(len(offsets)))
	at = p.base
	for _, offset := range offsets {
		w.number(offset - at)
		w.past(p.told(offset, d), runs, causes, from)
		at = offset
	}
	binary.BigEndian.PutUint32(w.b, crc32.Checksum(w.b[4:], castagnoli))
	return metadataVersion + base64.RawURLEncoding.EncodeToString(w.b)
}

// cause is why a try failed.
type cause struct {
	code   int
	reason string
}

// told is what is told of a record.
func (p *progress) told(offset int64, d detail) past {
	e := p.tries[offset]
	if d < dueOnly {
		e.due = 0
	}
	if d < dueAndCode {
		e.code = 0
	}
	if d < allDetail {
		e.reason = ""
	} else if len(e.reason) > maxCauseText {
		e.reason = strings.ToValidUTF8(e.reason[:maxCauseText], "")
	}
	return e
}

// tables collects what several tries may share, in the order of their offsets:
// the runs, the causes, and the earliest time of a next try.
func (p *progress) tables(offsets []int64, d detail) (runs []run, causes []cause, from int64) {
	texts := 0
	for _, offset := range offsets {
		e := p.told(offset, d)
		if e.by != (run{}) && !slices.Contains(runs, e.by) {
			runs = append(runs, e.by)
		}
		if e.due > 0 && (from == 0 || e.due < from) {
			from = e.due
		}
		c := cause{e.code, e.reason}
		if c == (cause{}) || slices.Contains(causes, c) {
			continue
		}
		if c.reason != "" {
			if texts++; texts > maxCauses {
				if c.reason = ""; c == (cause{}) || slices.Contains(causes, c) {
					continue
				}
			}
		}
		causes = append(causes, c)
	}
	return runs, causes, from
}

// writer appends varints.
type writer struct{ b []byte }

func (w *writer) number(n int64) { w.b = binary.AppendUvarint(w.b, uint64(n)) }

func (w *writer) past(e past, runs []run, causes []cause, from int64) {
	first := e.failed & lowFailed
	if e.started {
		first |= isStarted
	}
	if e.givenUp {
		first |= isGivenUp
	}
	more := e.failed>>failedBits<<cutBits | e.cuts
	if more > 0 {
		first |= hasMore
	}
	if e.running || e.by != (run{}) {
		first |= hasRun
	}
	if e.due > 0 {
		first |= hasDue
	}
	why := slices.Index(causes, cause{e.code, e.reason})
	if why < 0 && e.code > 0 { // there were too many texts
		why = slices.Index(causes, cause{code: e.code})
	}
	if why >= 0 {
		first |= hasCause
	}
	w.b = append(w.b, byte(first))
	if more > 0 {
		w.number(int64(more))
	}
	if first&hasRun > 0 {
		w.number(int64(slices.Index(runs, e.by) + 1)) // no run is not among them
	}
	if e.due > 0 {
		w.number(e.due - from)
	}
	if why >= 0 {
		w.number(int64(why))
	}
}

// errProgress says that a commit's metadata cannot be read. Nobody may take it
// for empty: that would do finished work again.
var errProgress = errors.New("the progress committed with the offset cannot be read; was it written by a newer version? To go on without it, commit the offset anew with empty metadata, for example with kafka-consumer-groups --reset-offsets")

// parseProgress reads what was committed. Empty metadata is an offset that a
// plain consumer or a tool has committed: nothing beyond it is known.
func parseProgress(offset int64, metadata string) (progress, error) {
	if metadata == "" {
		return progress{base: offset}, nil
	}
	read := (*reading).progress
	text, current := strings.CutPrefix(metadata, metadataVersion)
	if !current {
		var ok bool
		if text, ok = strings.CutPrefix(metadata, firstVersion); !ok {
			return progress{}, fmt.Errorf("%w: it begins with %.12q", errProgress, metadata)
		}
		read = (*reading).firstProgress
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return progress{}, fmt.Errorf("%w: %w", errProgress, err)
	}
	const head = 8
	if len(b) < head || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return progress{}, fmt.Errorf("%w: its checksum is wrong", errProgress)
	}
	n := reading{left: b[head:]}
	p := read(&n)
	p.incarnation = binary.BigEndian.Uint32(b[4:])
	if p.base != offset {
		return progress{}, fmt.Errorf("%w: it was written for offset %d and stands at %d", errProgress, p.base, offset)
	}
	// Each progress has one spelling, so that a text that was tampered with or was
	// written by a program with other rules is noticed.
	if n.broken || len(n.left) > 0 || current && p.encodeWith(allDetail) != metadata {
		return progress{}, fmt.Errorf("%w: it is malformed", errProgress)
	}
	return p, nil
}

// reading reads varints. After one that is not there, or not as encode writes
// it, it is broken and gives zeros.
type reading struct {
	left   []byte
	broken bool
}

func (n *reading) progress() (p progress) {
	p.owner = n.run()
	p.base = n.upTo(1 << 62)
	runs := make([]run, n.count(len(p.owner)))
	for i := range runs {
		runs[i] = n.run()
	}
	causes := make([]cause, n.count(2))
	for i := range causes {
		causes[i].code = int(n.upTo(maxCode))
		causes[i].reason = string(n.bytes(int(n.upTo(maxCauseText))))
	}
	from := n.upTo(maxNumber)
	n.done(&p)
	at := p.base
	for i := range n.count(2) {
		at += n.atLeast(int64(min(i, 1)))
		e := n.past(runs, causes, from)
		n.broken = n.broken || e == (past{})
		p.set(at, e)
	}
	return p
}

func (n *reading) done(p *progress) {
	at := p.base
	for range n.count(2) {
		s := span{from: at + n.atLeast(1)}
		s.to = s.from + n.atLeast(1)
		p.done = append(p.done, s)
		at = s.to
	}
}

func (n *reading) past(runs []run, causes []cause, from int64) (e past) {
	first := n.bytes(1)
	if n.broken {
		return past{}
	}
	e.failed, e.started, e.givenUp = int(first[0]&lowFailed), first[0]&isStarted > 0, first[0]&isGivenUp > 0
	if first[0]&hasMore > 0 {
		more := int(n.upTo(maxFailed))
		e.failed, e.cuts = e.failed|more>>cutBits<<failedBits, more&maxCuts
	}
	if first[0]&hasRun > 0 {
		if i := int(n.upTo(uint64(len(runs)))); i > 0 {
			e.by = runs[i-1]
		} else {
			e.running = true
		}
	}
	if first[0]&hasDue > 0 {
		e.due = from + n.upTo(maxNumber)
	}
	if first[0]&hasCause > 0 {
		if i := int(n.upTo(maxNumber)); i < len(causes) {
			e.code, e.reason = causes[i].code, causes[i].reason
		} else {
			n.broken = true
		}
	}
	return e
}

func (n *reading) run() (r run) {
	copy(r[:], n.bytes(len(r)))
	return r
}

// bytes reads so many; fewer are none.
func (n *reading) bytes(size int) []byte {
	if n.broken || size > len(n.left) {
		n.broken = true
		return nil
	}
	b := n.left[:size]
	n.left = n.left[size:]
	return b
}

func (n *reading) upTo(most uint64) int64 {
	v, size := binary.Uvarint(n.left)
	if n.broken || size <= 0 || v > most || size > 1 && n.left[size-1] == 0 {
		n.broken = true
		return 0
	}
	n.left = n.left[size:]
	return int64(v)
}

func (n *reading) atLeast(least int64) int64 {
	v := n.upTo(maxNumber)
	n.broken = n.broken || v < least
	return v
}

// count reads how many entries follow, each of so many bytes at least.
func (n *reading) count(size int) int { return int(n.upTo(uint64(len(n.left) / size))) }

// firstVersion begins the metadata of Osmosis before it could hand tries over:
// no owner, no runs, no causes, no times; the tries are counts with two marks.
const firstVersion = "osmosis1:"

func (n *reading) firstProgress() (p progress) {
	p.base = n.upTo(1 << 62)
	n.done(&p)
	at := p.base
	for i := range n.count(2) {
		at += n.atLeast(int64(min(i, 1)))
		count := n.atLeast(1)
		n.broken = n.broken || count>>2 > maxFailed
		started := count&1 > 0
		p.set(at, past{failed: int(count >> 2), started: started, running: started, givenUp: count&2 > 0})
	}
	return p
}

// Ahead returns what a commit says of records at and after its offset: how many
// are done, and how many were tried in vain and wait to be tried again. Both are
// zero for the commits of others, and for those that cannot be read.
func Ahead(offset int64, metadata string) (done, waiting int64) {
	p, err := parseProgress(offset, metadata)
	if err != nil {
		return 0, 0
	}
	for _, s := range p.done {
		done += s.to - s.from
	}
	for _, e := range p.tries {
		if e.tried() && e.by == (run{}) {
			waiting++
		}
	}
	return done, waiting
}
