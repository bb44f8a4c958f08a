package osmosis

import (
	"runtime/debug"
	"testing"
)

func TestHeadroomIsModest(t *testing.T) {
	t.Setenv("GOGC", "")
	const small = 64 << 20
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(small))
	if n := len(newHeadroom()); n != small/headroomShare {
		t.Errorf("%d bytes where the process may have %d", n, small)
	}
	debug.SetMemoryLimit(1 << 40)
	if n := len(newHeadroom()); n != mostHeadroom {
		t.Errorf("%d bytes where there is plenty", n)
	}
	t.Setenv("GOGC", "50")
	if n := len(newHeadroom()); n != 0 {
		t.Errorf("%d bytes although GOGC says how often to collect", n)
	}
}
