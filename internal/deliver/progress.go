package deliver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Bounds of what a commit carries. Kafka refuses metadata of more than 4,096
// bytes (offset.metadata.max.bytes), and other brokers take anything, so the
// bound is kept here.
const (
	maxMetadata = 3500
	// maxAhead is how far behind the first record that is not done reading goes.
	maxAhead = 16_000
	// The end of one try adds two numbers to the encoded progress: a stretch that
	// is not done is split in two, or a count of tries comes in. A count of tries
	// takes two bytes from 32 on, another number one byte more if it is large, and
	// three at most.
	minStep = 3
	maxStep = 5
	// maxNumber bounds the numbers in it, but for the offset: a hole in the log
	// may be longer than maxAhead. Each takes six bytes at most.
	maxNumber = 1 << 40
	maxEntry  = 2 * 6 * 4 / 3
)

// progress is what of a partition is done, and how often records that are not
// done were tried. Committed with the offset, as its metadata, it survives
// restarts and rebalances: neither is finished work repeated, nor a record tried
// for ever because nobody remembers how often it was.
type progress struct {
	// incarnation is that of the topic that the offsets belong to.
	incarnation uint32
	// base is the first offset that is not done. It is what is committed.
	base int64
	// done are the offsets after base that are done: in order, with offsets
	// that are not done between any two and before the first.
	done []span
	// tries counts the failed tries of records that are not done, with marks.
	tries map[int64]int
	// size is the length of the encoded progress, 0 when it has changed since.
	size int
}

// span is a range of offsets, to excluded.
type span struct{ from, to int64 }

// isDone tells whether the record at an offset need not be tried.
func (p *progress) isDone(offset int64) bool {
	if offset < p.base {
		return true
	}
	i := p.after(offset)
	return i > 0 && offset < p.done[i-1].to
}

// end gives the first offset, from base on, of which nothing is known.
func (p *progress) end() int64 {
	end := p.base + 1
	if n := len(p.done); n > 0 {
		end = p.done[n-1].to
	}
	for offset := range p.tries {
		end = max(end, offset+1)
	}
	return end
}

// after gives the index of the first range that begins after an offset.
func (p *progress) after(offset int64) int {
	return sort.Search(len(p.done), func(i int) bool { return p.done[i].from > offset })
}

// finish marks a range of offsets as done, the last excluded: a record, or a
// hole that compaction or a transaction has left.
func (p *progress) finish(from, to int64) {
	from = max(from, p.base)
	if from >= to {
		return
	}
	p.size = 0
	if to == from+1 {
		delete(p.tries, from)
	} else {
		maps.DeleteFunc(p.tries, func(offset int64, _ int) bool { return offset >= from && offset < to })
	}
	first := p.after(from)
	if first > 0 && p.done[first-1].to >= from {
		first--
		from = p.done[first].from
	}
	last := first
	for last < len(p.done) && p.done[last].from <= to {
		to = max(to, p.done[last].to)
		last++
	}
	p.done = slices.Replace(p.done, first, last, span{from, to})
	if p.done[0].from == p.base {
		p.base = p.done[0].to
		p.done = slices.Delete(p.done, 0, 1)
	}
}

// cut forgets everything from an offset on.
func (p *progress) cut(from int64) {
	p.size = 0
	p.base = min(p.base, from)
	maps.DeleteFunc(p.tries, func(offset int64, _ int) bool { return offset >= from })
	for i := len(p.done) - 1; i >= 0 && p.done[i].to > from; i-- {
		if p.done[i].to = from; p.done[i].from >= from {
			p.done = p.done[:i]
		}
	}
}

// fail counts a failed try and gives how many there were.
func (p *progress) fail(offset int64) int {
	if p.tries == nil {
		p.tries = make(map[int64]int)
	}
	n := min(p.tries[offset]%startedMark+1, startedMark-1)
	p.tries[offset] = n
	p.size = 0
	return n
}

// Marks that a record has beside the number of its tries.
const (
	// startedMark: an answer to it is on its way in parts. Whoever finds the mark
	// finds half an answer.
	startedMark = 1 << 20
	// givenUpMark: it is not to be tried again. Whoever finds the mark does what is
	// left to do, or a request that broke off for good would be tried once more.
	givenUpMark = startedMark << 1
)

// start notes that the answer to a record has begun to go out.
func (p *progress) start(offset int64) { p.mark(offset, startedMark) }

// giveUp notes that a record is not to be tried again.
func (p *progress) giveUp(offset int64) { p.mark(offset, givenUpMark) }

func (p *progress) mark(offset int64, with int) {
	if p.tries == nil {
		p.tries = make(map[int64]int)
	}
	p.tries[offset] |= with
	p.size = 0
}

// past is what is known of the tries of a record.
type past struct {
	// failed is how many there were in vain.
	failed int
	// started says that another ended in the middle of its answer, uncounted.
	started bool
	// givenUp says that there is to be no other.
	givenUp bool
}

func (p progress) past(offset int64) past {
	n := p.tries[offset]
	return past{n % startedMark, n&startedMark != 0, n&givenUpMark != 0}
}

// fits tells whether the progress will still fit into a commit's metadata when
// so many more tries of records before an offset have ended, however they end.
// The first record that is not done may always be tried, or nothing would ever
// become shorter again; its share is part of the bound.
func (p *progress) fits(tries int, before int64) bool {
	// Numbers that follow each other add up to no more than the distance to the
	// last, so few of them can be large: of done and of tries, one for each 127.
	large := 2 * int((before-p.base)/127+1)
	bytes := min(maxStep*(tries+1), minStep*(tries+1)+large)
	budget := maxMetadata - (bytes*4+2)/3
	if headerSize+maxEntry*(len(p.done)+len(p.tries)) <= budget {
		return true // as nearly always, and without looking closer
	}
	if p.size == 0 {
		p.size = len(p.encode())
	}
	return p.size <= budget
}

// The text begins with its version. What follows is base64url of a checksum and
// numbers as varints.
const (
	metadataVersion = "osmosis1:"
	headerSize      = len(metadataVersion) + (4+4+3*binary.MaxVarintLen64)*4/3 + 2
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode gives the metadata to commit with base. Equal progress is equal text.
func (p *progress) encode() string {
	b := make([]byte, 4, 4+4+binary.MaxVarintLen64+4*(len(p.done)+len(p.tries)))
	b = binary.BigEndian.AppendUint32(b, p.incarnation)
	b = binary.AppendUvarint(b, uint64(p.base))
	b = binary.AppendUvarint(b, uint64(len(p.done)))
	at := p.base
	for _, s := range p.done {
		b = binary.AppendUvarint(b, uint64(s.from-at))
		b = binary.AppendUvarint(b, uint64(s.to-s.from))
		at = s.to
	}
	offsets := make([]int64, 0, len(p.tries))
	for offset := range p.tries {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	b = binary.AppendUvarint(b, uint64(len(offsets)))
	at = p.base
	for _, offset := range offsets {
		b = binary.AppendUvarint(b, uint64(offset-at))
		n := p.tries[offset]
		b = binary.AppendUvarint(b, uint64(n%startedMark<<2|n/startedMark)) // a count below 32 is one byte
		at = offset
	}
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return metadataVersion + base64.RawURLEncoding.EncodeToString(b)
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
	text, ok := strings.CutPrefix(metadata, metadataVersion)
	if !ok {
		return progress{}, fmt.Errorf("%w: it begins with %.12q", errProgress, metadata)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return progress{}, fmt.Errorf("%w: %w", errProgress, err)
	}
	const head = 8
	if len(b) < head || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return progress{}, fmt.Errorf("%w: its checksum is wrong", errProgress)
	}
	p := progress{incarnation: binary.BigEndian.Uint32(b[4:])}
	n := numbers{left: b[head:]}
	if p.base = n.upTo(1 << 62); p.base != offset {
		return progress{}, fmt.Errorf("%w: it was written for offset %d and stands at %d", errProgress, p.base, offset)
	}
	at := p.base
	for range n.count() {
		s := span{from: at + n.atLeast(1)}
		s.to = s.from + n.atLeast(1)
		p.done = append(p.done, s)
		at = s.to
	}
	at = p.base
	for i := range n.count() {
		at += n.atLeast(min(i, 1))
		if p.tries == nil {
			p.tries = make(map[int64]int)
		}
		count := n.atLeast(1)
		n.broken = n.broken || count>>2 >= startedMark
		p.tries[at] = int(count>>2 | count&3*startedMark)
	}
	if n.broken || len(n.left) > 0 {
		return progress{}, fmt.Errorf("%w: it is malformed", errProgress)
	}
	return p, nil
}

// numbers reads varints. After one that is not there, or not as encode writes
// it, it is broken and gives zeros.
type numbers struct {
	left   []byte
	broken bool
}

func (n *numbers) upTo(most uint64) int64 {
	v, size := binary.Uvarint(n.left)
	if n.broken || size <= 0 || v > most || size > 1 && n.left[size-1] == 0 {
		n.broken = true
		return 0
	}
	n.left = n.left[size:]
	return int64(v)
}

func (n *numbers) atLeast(least int64) int64 {
	v := n.upTo(maxNumber)
	n.broken = n.broken || v < least
	return v
}

// count reads how many entries follow. Each takes two bytes at least.
func (n *numbers) count() int64 { return n.upTo(uint64(len(n.left) / 2)) }

// Ahead tells what a commit says of records at and after its offset: how many are
// done, and how many were tried in vain and wait to be tried again. It is zero for
// the commits of others, and for those that cannot be read.
func Ahead(offset int64, metadata string) (done, waiting int64) {
	p, err := parseProgress(offset, metadata)
	if err != nil {
		return 0, 0
	}
	for _, s := range p.done {
		done += s.to - s.from
	}
	return done, int64(len(p.tries))
}
