package osmosis

import (
	"os"
	"runtime/debug"
	"sync"
)

const (
	mostHeadroom = 32 << 20
	// headroomShare is the share of the memory that the process may have (GOMEMLIMIT,
	// which Caddy sets by the container's limit) that is taken at most.
	headroomShare = 16
)

// headroom is memory that is never touched: most systems give it an address range
// and nothing else, though Go counts it. It is there for Go's garbage collector,
// which runs whenever the heap has doubled. A gateway that keeps little in memory
// has a heap of 7 MiB, and at ten thousand requests a second it would double
// fifteen times in each: every time what is pooled gets lost and all is looked
// through again, at a sixth of the CPU that a request costs (bench/ingress). With
// this much on top it happens a fifth as often, and up to as much memory more is in
// use under load.
//
// It is made once for the process, and kept by being its value.
var headroom = sync.OnceValue(newHeadroom)

// newHeadroom makes it, unless GOGC says how often to collect.
func newHeadroom() []byte {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return make([]byte, min(mostHeadroom, debug.SetMemoryLimit(-1)/headroomShare))
}
