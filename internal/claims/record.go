package claims

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// Mark is what the topic knows of a request under one secret: keyed hashes, so
// that its readers learn neither who asked nor for what.
type Mark struct {
	// Key stands for who asks and the key that they gave.
	Key [16]byte
	// Body stands for what they ask for.
	Body [16]byte
}

// MaxMarks is how many secrets a claim is made under at most.
const MaxMarks = 8

// Stream is the stream that a claim is about: what a gateway needs to know to
// make its token again.
type Stream struct {
	// ID is the stream id. No two claims are made with the same.
	ID string
	// Topic and Partition say where its replies will lie, and Partitions how many
	// the topic had.
	Topic                 string
	Partition, Partitions int32
	// Floor is an offset below which none of its replies can lie. Without it a
	// repeat would wait behind an answer that has already come.
	Floor int64
	// Incarnation is the life of the reply topic that Floor belongs to.
	Incarnation uint32
	// Issued and Expires bound the time in which an answer counts, in whole
	// milliseconds.
	Issued, Expires time.Time
}

// Position says where a record lies.
type Position struct {
	Partition int32
	Offset    int64
	// Incarnation tells the topic from another one of the same name.
	Incarnation uint32
}

// A record's key is the Key of the claim's first mark. Its value begins with
// version and kind. Texts stand behind their length, incarnations and hashes
// are bytes, other numbers varints.
const (
	version = 1

	kindClaim  = 'c' // marks, stream, until, patience
	kindNote   = 'n' // stream id, position of the request
	kindRevoke = 'r' // stream id of the claim that is taken back
)

// claim says that its gateway would queue a request.
type claim struct {
	marks    []Mark
	stream   Stream
	until    int64 // Unix ms; the claim is live before it
	patience int64 // ms; how long after the claim the request may still be queued
}

// note says that a stream's request has been queued, and where it lies.
type note struct {
	stream  string
	request Position
}

// revoke says that the one who made a claim has not queued its request and
// will not do so.
type revoke struct{ holder string }

func (c claim) record() record.Record {
	b := make([]byte, 0, 64+len(c.marks)*32+len(c.stream.ID)+len(c.stream.Topic))
	b = append(b, version, kindClaim, byte(len(c.marks)))
	for _, m := range c.marks {
		b = append(b, m.Key[:]...)
		b = append(b, m.Body[:]...)
	}
	b = appendText(b, c.stream.ID)
	b = appendText(b, c.stream.Topic)
	b = binary.AppendVarint(b, int64(c.stream.Partition))
	b = binary.AppendVarint(b, int64(c.stream.Partitions))
	b = binary.AppendVarint(b, c.stream.Floor)
	b = binary.BigEndian.AppendUint32(b, c.stream.Incarnation)
	issued := c.stream.Issued.UnixMilli()
	b = binary.AppendVarint(b, issued)
	b = binary.AppendVarint(b, c.stream.Expires.UnixMilli()-issued)
	b = binary.AppendVarint(b, c.until-issued)
	b = binary.AppendVarint(b, c.patience)
	return record.Record{Key: c.marks[0].Key[:], Value: b}
}

func (n note) record(key [16]byte) record.Record {
	b := appendText([]byte{version, kindNote}, n.stream)
	b = binary.AppendVarint(b, int64(n.request.Partition))
	b = binary.AppendVarint(b, n.request.Offset)
	b = binary.BigEndian.AppendUint32(b, n.request.Incarnation)
	return record.Record{Key: key[:], Value: b}
}

func (r revoke) record(key [16]byte) record.Record {
	return record.Record{Key: key[:], Value: appendText([]byte{version, kindRevoke}, r.holder)}
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// errRecord says that a record on the claims topic is none of ours, or of a
// version that this gateway does not know.
var errRecord = errors.New("not a claim, note or revocation")

// parse reads a record's value: a claim, a note or a revoke. Each has one
// encoding, and nothing may follow it.
func parse(value []byte) (any, error) {
	if len(value) < 2 || value[0] != version {
		return nil, errRecord
	}
	d := decoder{rest: value[2:]}
	var parsed any
	switch value[1] {
	case kindClaim:
		parsed = d.claim()
	case kindNote:
		parsed = note{stream: d.text(), request: Position{Partition: d.int32(), Offset: d.int64(), Incarnation: d.uint32()}}
	case kindRevoke:
		parsed = revoke{holder: d.text()}
	default:
		d.bad = true
	}
	if d.bad || len(d.rest) > 0 {
		return nil, fmt.Errorf("%w: kind %q", errRecord, value[1])
	}
	return parsed, nil
}

// decoder takes values off the front of rest. After a value that cannot be read
// it is bad and gives zero values.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) claim() claim {
	var c claim
	n := 0
	if b := d.bytes(1); b != nil {
		n = int(b[0])
	}
	if n < 1 || n > MaxMarks {
		d.bad = true
		return c
	}
	c.marks = make([]Mark, n)
	for i := range c.marks {
		copy(c.marks[i].Key[:], d.bytes(16))
		copy(c.marks[i].Body[:], d.bytes(16))
	}
	c.stream = Stream{ID: d.text(), Topic: d.text(), Partition: d.int32(), Partitions: d.int32(), Floor: d.int64(), Incarnation: d.uint32()}
	issued := d.int64()
	c.stream.Issued = time.UnixMilli(issued).UTC()
	c.stream.Expires = time.UnixMilli(issued + d.int64()).UTC()
	c.until = issued + d.int64()
	c.patience = d.int64()
	if s := c.stream; s.ID == "" || s.Partition < 0 || s.Partition >= s.Partitions || s.Floor < 0 {
		d.bad = true
	}
	return c
}

// bytes takes n bytes. The bound is what is there, so no length can make it allocate.
func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) text() string { return string(d.bytes(d.uvarint())) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	// A last byte of zero after others is a longer spelling of the same number.
	if d.bad || n <= 0 || n > 1 && d.rest[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// int64 undoes the zigzag of binary.AppendVarint.
func (d *decoder) int64() int64 {
	v := d.uvarint()
	return int64(v>>1) ^ -int64(v&1) //nolint:gosec // a shift leaves room for the sign
}

func (d *decoder) int32() int32 {
	v := d.int64()
	if int64(int32(v)) != v { //nolint:gosec // that is what is looked at
		d.bad = true
		return 0
	}
	return int32(v) //nolint:gosec // it fits, see above
}

func (d *decoder) uint32() uint32 {
	b := d.bytes(4)
	if d.bad {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
