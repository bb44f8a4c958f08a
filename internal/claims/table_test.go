package claims

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// log is what a table test applies: each step is a time in ms and a word.
//
//	claim <stream> <key+body>…   note <stream>   revoke <holder>
//
// Claims are live for 1000 ms and have 100 ms of patience. Notes and
// revocations are about key k.
func applied(steps ...string) *table {
	t := newTable(10)
	for _, step := range steps {
		var at int64
		var word string
		fmt.Sscanf(step, "%d %s", &at, &word)
		rest := strings.Fields(step)[2:]
		key := [16]byte{'k'}
		switch word {
		case "claim":
			c := claim{stream: stream(rest[0]), until: at + 1000, patience: 100}
			for _, m := range rest[1:] {
				c.marks = append(c.marks, mark(m[0], m[1]))
			}
			t.apply(0, at, c.marks[0].Key[:], c)
		case "note":
			t.apply(0, at, key[:], note{stream: rest[0], request: Position{Offset: at}})
		case "revoke":
			t.apply(0, at, key[:], revoke{holder: rest[0]})
		}
	}
	return t
}

// tell describes what a table says of key k.
func tell(t *table) string {
	e, same := t.find([]Mark{mark('k', 'a')})
	if e == nil {
		return "free"
	}
	var says []string
	says = append(says, "stream "+e.stream.ID)
	if !same {
		says = append(says, "other body")
	}
	if e.noted {
		says = append(says, fmt.Sprintf("at %d", e.request.Offset))
	} else {
		says = append(says, fmt.Sprintf("held by %q until %d", e.holder, e.deadline))
	}
	return strings.Join(says, ", ")
}

func TestVerdicts(t *testing.T) {
	for name, test := range map[string]struct {
		log  []string
		want string
	}{
		"nothing":                  {nil, "free"},
		"one":                      {[]string{"0 claim s ka"}, `stream s, held by "s" until 100`},
		"the first wins":           {[]string{"0 claim s ka", "1 claim t ka"}, `stream s, held by "s" until 100`},
		"the first wins, other":    {[]string{"0 claim s kb", "1 claim t ka"}, `stream s, other body, held by "s" until 100`},
		"noted":                    {[]string{"0 claim s ka", "5 note s", "500 claim t ka"}, "stream s, at 5"},
		"noted once":               {[]string{"0 claim s ka", "5 note s", "6 note s"}, "stream s, at 5"},
		"another's note":           {[]string{"0 claim s ka", "1 claim t ka", "5 note t"}, `stream s, held by "s" until 100`},
		"a note without a claim":   {[]string{"5 note s"}, "free"},
		"another key":              {[]string{"0 claim s xa"}, "free"},
		"revoked":                  {[]string{"0 claim s ka", "1 revoke s"}, "free"},
		"revoked, then another":    {[]string{"0 claim s ka", "1 claim t kb", "2 revoke s", "3 claim u ka"}, `stream u, held by "u" until 103`},
		"a loser's revocation":     {[]string{"0 claim s ka", "1 claim t ka", "2 revoke t"}, `stream s, held by "s" until 100`},
		"revoked after the note":   {[]string{"0 claim s ka", "1 note s", "2 revoke s"}, "stream s, at 1"},
		"in its time":              {[]string{"0 claim s ka", "99 claim t ka"}, `stream s, held by "s" until 100`},
		"taken up":                 {[]string{"0 claim s ka", "100 claim t ka"}, `stream s, held by "t" until 200`},
		"taken up by one":          {[]string{"0 claim s ka", "100 claim t ka", "101 claim u ka"}, `stream s, held by "t" until 200`},
		"taken up twice":           {[]string{"0 claim s ka", "100 claim t ka", "200 claim u ka"}, `stream s, held by "u" until 300`},
		"not for another body":     {[]string{"0 claim s ka", "100 claim t kb"}, `stream s, held by "s" until 100`},
		"taken up and noted":       {[]string{"0 claim s ka", "100 claim t ka", "105 note s"}, "stream s, at 105"},
		"a late note of the first": {[]string{"0 claim s ka", "100 claim t ka", "101 note s", "102 revoke t"}, "stream s, at 101"},
		"a late revocation":        {[]string{"0 claim s ka", "100 claim t ka", "101 revoke s"}, `stream s, held by "t" until 200`},
		"given back":               {[]string{"0 claim s ka", "100 claim t ka", "101 revoke t"}, `stream s, held by "" until 0`},
		"given back and taken":     {[]string{"0 claim s ka", "100 claim t ka", "101 revoke t", "102 claim u ka"}, `stream s, held by "u" until 202`},
		"the end of the window":    {[]string{"0 claim s ka", "5 note s", "999 claim t ka"}, "stream s, at 5"},
		"after the window":         {[]string{"0 claim s ka", "5 note s", "1000 claim t kb"}, `stream t, other body, held by "t" until 1100`},
		"under a second secret":    {[]string{"0 claim s ka ob", "1 claim t ka"}, `stream s, held by "s" until 100`},
		"under the other first":    {[]string{"0 claim s oa ka", "1 claim t ka oa"}, `stream s, held by "s" until 100`},
		"noted under any":          {[]string{"0 claim s oa ka", "5 note s"}, "stream s, at 5"},
		"revoked, no secret stays": {[]string{"0 claim s ka oa", "1 revoke s", "2 claim t oa ka"}, `stream t, held by "t" until 102`},
		"a claim that never lived": {[]string{"0 claim s ka", "1 revoke s", "2 note s"}, "free"},
	} {
		if got := tell(applied(test.log...)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// Whatever the log holds, the table stays what it says it is.
func TestTableHolds(t *testing.T) {
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 0))
		table := newTable(5)
		var at int64
		for range 300 {
			at += chance.Int64N(50)
			partition := int32(chance.IntN(2))
			key := [16]byte{byte(chance.IntN(8))}
			id := string(rune('a' + chance.IntN(26)))
			switch chance.IntN(6) {
			case 0:
				table.apply(partition, at, key[:], note{stream: id})
			case 1:
				table.apply(partition, at, key[:], revoke{holder: id})
			case 2:
				table.sweep(partition, at-100)
			default:
				c := claim{marks: []Mark{{Key: key}, mark(byte(chance.IntN(8)), 0)}, stream: stream(id), until: at + chance.Int64N(500), patience: 20}
				table.apply(partition, at, key[:], c)
			}
			entries := 0
			for p, due := range table.due {
				for i, e := range *due {
					if e.index != i || e.partition != p {
						t.Fatalf("seed %d: entry %d of partition %d is told to be %d of %d", seed, i, p, e.index, e.partition)
					}
					if i > 0 && e.until < (*due)[(i-1)/2].until {
						t.Fatalf("seed %d: a heap out of order", seed)
					}
				}
				entries += due.Len()
			}
			if entries != table.count || entries > 5 {
				t.Fatalf("seed %d: %d entries, %d counted", seed, entries, table.count)
			}
		}
		table.drop(0)
		table.drop(1)
		if table.count != 0 || len(table.byKey) != 0 {
			t.Fatalf("seed %d: %d entries, %d keys left", seed, table.count, len(table.byKey))
		}
	}
}

// A claim that does not fit makes the table blind until it has ended, since
// another gateway may have kept it.
func TestTableIsBounded(t *testing.T) {
	table := newTable(2)
	put := func(at int64, id string, until int64) {
		c := claim{marks: []Mark{mark(id[0], 0)}, stream: stream(id), until: until, patience: 10}
		table.apply(0, at, c.marks[0].Key[:], c)
	}
	put(0, "a", 100)
	put(0, "b", 200)
	if table.blindUntil != 0 {
		t.Errorf("blind until %d", table.blindUntil)
	}
	put(1, "c", 300)
	if table.count != 2 || table.blindUntil != 300 {
		t.Errorf("%d entries, blind until %d", table.count, table.blindUntil)
	}
	put(2, "a", 900) // known, so that it needs no room
	table.sweep(0, 100)
	put(150, "d", 400)
	if e, _ := table.find([]Mark{mark('d', 0)}); e == nil || table.count != 2 {
		t.Errorf("no room after the first has ended: %d", table.count)
	}
}

// BenchmarkTable reads claims that all stay live, and tells what one takes in memory.
func BenchmarkTable(b *testing.B) {
	table := newTable(1 << 30)
	before := heapBytes()
	for i := range b.N {
		var m Mark
		binary.BigEndian.PutUint64(m.Key[:], uint64(i))
		c := claim{marks: []Mark{m}, stream: stream("eH3jdQnJNWM1GdNZ39sLcq9XsBXQ"), until: 1e15, patience: 10_000}
		parsed, err := parse(c.record().Value)
		if err != nil {
			b.Fatal(err)
		}
		table.apply(0, 0, m.Key[:], parsed)
	}
	b.ReportMetric(float64(heapBytes()-before)/float64(b.N), "B/claim")
	runtime.KeepAlive(table)
}

func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
