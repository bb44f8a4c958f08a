package claims

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

// mark gives a mark by two letters.
func mark(key, body byte) Mark {
	return Mark{Key: [16]byte{key}, Body: [16]byte{body}}
}

// stream gives a stream that was issued at a time of the tests.
func stream(id string) Stream {
	issued := time.UnixMilli(1_700_000_000_000).UTC()
	return Stream{
		ID: id, Topic: "osmosis.replies", Partition: 3, Partitions: 32, Floor: 70_000, Incarnation: 0xfeedbeef,
		Issued: issued, Expires: issued.Add(12 * time.Hour),
	}
}

func TestRecordsComeBack(t *testing.T) {
	for name, want := range map[string]any{
		"claim":    claim{marks: []Mark{mark('k', 'b'), mark('o', 'c')}, stream: stream("s"), until: 1_700_086_400_000, patience: 10_000},
		"no floor": claim{marks: []Mark{mark('k', 'b')}, stream: Stream{ID: "s", Partitions: 1, Issued: time.UnixMilli(0).UTC(), Expires: time.UnixMilli(0).UTC()}},
		"note":     note{stream: "s", request: Position{Partition: 7, Offset: 1 << 40, Incarnation: 9}},
		"revoke":   revoke{holder: "s"},
	} {
		rec := encode(want)
		got, err := parse(rec.Value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v, want %+v", name, got, err, want)
		}
		if !bytes.Equal(rec.Key, append([]byte{'k'}, make([]byte, 15)...)) {
			t.Errorf("%s: key %x", name, rec.Key)
		}
		for cut := range rec.Value {
			if got, err := parse(rec.Value[:cut]); err == nil {
				t.Errorf("%s cut to %d bytes: %+v", name, cut, got)
			}
		}
		if got, err := parse(append(rec.Value, 0)); err == nil {
			t.Errorf("%s with a byte more: %+v", name, got)
		}
	}
}

func TestForeignRecords(t *testing.T) {
	good := claim{marks: []Mark{mark('k', 'b')}, stream: stream("s"), until: 1, patience: 1}
	change := func(f func(*claim)) []byte {
		c := good
		f(&c)
		return c.record().Value
	}
	later := good.record().Value
	later[0] = version + 1
	for name, value := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "JSON": []byte(`{}`), "no kind": {version}, "another kind": {version, 'x'}, "a later version": later,
		"no marks":            {version, kindClaim, 0},
		"too many marks":      append([]byte{version, kindClaim, MaxMarks + 1}, make([]byte, 1000)...),
		"no stream id":        change(func(c *claim) { c.stream.ID = "" }),
		"no such partition":   change(func(c *claim) { c.stream.Partition = 32 }),
		"a partition below 0": change(func(c *claim) { c.stream.Partition = -1 }),
		"a floor below 0":     change(func(c *claim) { c.stream.Floor = -1 }),
		"a longer spelling":   {version, kindRevoke, 0x81, 0x00, 's'},
	} {
		if got, err := parse(value); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// encode makes a record of what parse gives.
func encode(parsed any) (r struct{ Key, Value []byte }) {
	switch p := parsed.(type) {
	case claim:
		rec := p.record()
		r.Key, r.Value = rec.Key, rec.Value
	case note:
		rec := p.record([16]byte{'k'})
		r.Key, r.Value = rec.Key, rec.Value
	case revoke:
		rec := p.record([16]byte{'k'})
		r.Key, r.Value = rec.Key, rec.Value
	}
	return r
}

// What can be read at all is spelt in one way only, and applying it breaks nothing.
func FuzzParse(f *testing.F) {
	f.Add([]byte("k"), claim{marks: []Mark{mark('k', 'b')}, stream: stream("s"), until: 1_700_086_400_000, patience: 10_000}.record().Value, int64(1_700_000_000_000))
	f.Add(make([]byte, 16), note{stream: "s", request: Position{Partition: 1, Offset: 2, Incarnation: 3}}.record([16]byte{}).Value, int64(0))
	f.Add(make([]byte, 16), revoke{holder: "s"}.record([16]byte{}).Value, int64(-1))
	f.Fuzz(func(t *testing.T, key, value []byte, at int64) {
		parsed, err := parse(value)
		if err != nil {
			return
		}
		if again := encode(parsed).Value; !bytes.Equal(again, value) {
			t.Fatalf("%x comes back as %x", value, again)
		}
		table := newTable(2)
		for i := range int64(3) {
			table.apply(0, at+i, key, parsed)
		}
		table.sweep(0, at)
		if table.count > 2 || table.count < 0 {
			t.Fatalf("%d entries", table.count)
		}
		table.drop(0)
		if table.count != 0 || len(table.byKey) != 0 {
			t.Fatalf("%d entries, %d keys left", table.count, len(table.byKey))
		}
	})
}
