package osmosis

import (
	"slices"
	"testing"
)

// A stream counts as open until all else is given back that it held, whoever
// gives it back: that is what an exit waits for.
func TestHeldIsOpenToTheLast(t *testing.T) {
	var said []string
	say := func(word string) func() { return func() { said = append(said, word) } }
	h := new(held)
	h.add(say("lease"))
	h.left = say("left")
	h.add(say("subscription"))
	release := h.handOver()
	h.release()
	if len(said) > 0 {
		t.Errorf("%q although it was handed over", said)
	}
	release()
	if want := []string{"subscription", "lease", "left"}; !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
	release()
	if len(said) != 3 {
		t.Errorf("%q: given back twice", said)
	}
}
