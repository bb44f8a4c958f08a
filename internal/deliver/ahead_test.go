package deliver

import (
	"math"
	"testing"
)

// What is done behind the commit counts up to the offset that is asked for.
func TestDoneBelow(t *testing.T) {
	p := progress{base: 100}
	p.finish(102, 105)
	p.finish(110, 111)
	p.fail(106)
	metadata := p.encode()
	for below, want := range map[int64]int64{0: 0, 100: 0, 102: 0, 103: 1, 105: 3, 110: 3, 111: 4, math.MaxInt64: 4} {
		if got := DoneBelow(100, metadata, below); got != want {
			t.Errorf("below %d: %d, want %d", below, got, want)
		}
	}
	for _, foreign := range []string{"", "somebody else's", metadata + "x"} {
		if got := DoneBelow(100, foreign, math.MaxInt64); got != 0 {
			t.Errorf("%q: %d", foreign, got)
		}
	}
	if got := DoneBelow(99, metadata, math.MaxInt64); got != 0 {
		t.Errorf("at another offset: %d", got)
	}
}
