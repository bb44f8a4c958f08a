package hub

import "testing"

func TestLand(t *testing.T) {
	const start, end = 10, 20
	for _, c := range []struct {
		name          string
		floor, cursor int64
		fresh         bool
		want          landing
	}{
		{"floor within the log", 12, noCursor, false, landing{at: 12}},
		{"floor at the start", 10, noCursor, false, landing{at: 10}},
		{"floor at the end", 20, noCursor, false, landing{at: 20}},
		{"floor below the start", 9, noCursor, false, landing{at: 10, gap: gapRetention, held: true}},
		{"floor above an end that may be old", 21, noCursor, false, landing{ask: true}},
		{"floor above the end", 21, noCursor, true, landing{at: 10, gap: gapTruncated}},
		{"no floor", logStart, noCursor, false, landing{at: 10}},
		{"cursor at the floor", 12, 12, false, landing{at: 12, verify: true}},
		{"cursor below the floor", 12, 11, false, landing{at: 12, gap: gapCursor}},
		{"cursor below a floor below the start", 8, 7, false, landing{at: 10, gap: gapCursor}},
		{"cursor below the start", 5, 9, false, landing{at: 10, gap: gapRetention, held: true}},
		{"last record", 12, 19, false, landing{at: 19, verify: true}},
		{"cursor at an end that may be old", 12, 20, false, landing{ask: true}},
		{"cursor from the future", 12, 20, true, landing{at: 12, gap: gapCursor}},
		{"cursor from the future, floor below the start", 5, 20, true, landing{at: 10, gap: gapCursor}},
		{"cursor below a floor above the end", 25, 15, true, landing{at: 10, gap: gapTruncated}},
		{"cursor and floor above the end", 25, 30, true, landing{at: 10, gap: gapTruncated}},
		{"cursor without a floor", logStart, 15, false, landing{at: 15, verify: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := beginning{floor: c.floor, cursor: c.cursor}.land(bounds{start, end, c.fresh})
			if got != c.want {
				t.Errorf("%+v instead of %+v", got, c.want)
			}
		})
	}
}
