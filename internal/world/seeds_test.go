package world

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"
)

var (
	seedsFlag = flag.Uint64("world.seeds", 0, "how many seeds TestSeeds runs; 0: OSMOSIS_WORLD_SEEDS, or a few")
	fromFlag  = flag.Uint64("world.from", 1, "the first of them")
	seedFlag  = flag.Uint64("world.seed", 0, "the seed that TestSeed runs, with its history")
)

// fewSeeds is how many run where nothing is said, and fewRaced with the race
// detector, which takes several times as long.
const (
	fewSeeds = 150
	fewRaced = 20
)

// tally counts what all seeds of a test have done.
type tally struct {
	mu       sync.Mutex
	seeds    int
	failed   []uint64
	lasted   time.Duration
	requests int
	accepted int
	tries    int
	faults   [kinds]int
}

func (t *tally) add(o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds++
	t.lasted += o.lasted
	t.requests += len(o.history.sent)
	for _, s := range o.history.sent {
		if s.accepted {
			t.accepted++
		}
	}
	t.tries += len(o.history.tries)
	for k, n := range o.faults {
		t.faults[k] += n
	}
	if len(o.wrongs) > 0 {
		t.failed = append(t.failed, o.plan.seed)
	}
}

func (t *tally) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %d of them failed: %d requests (%d accepted), %d tries in %s of virtual time; faults:",
		t.seeds, len(t.failed), t.requests, t.accepted, t.tries, t.lasted.Round(time.Second))
	for k, n := range t.faults {
		if n > 0 {
			fmt.Fprintf(&b, " %d %s,", n, kind(k))
		}
	}
	return strings.TrimSuffix(b.String(), ",")
}

// TestSeeds runs many seeds, each of which is a world with other requests and
// other faults.
func TestSeeds(t *testing.T) {
	n := *seedsFlag
	if n == 0 {
		n, _ = strconv.ParseUint(os.Getenv("OSMOSIS_WORLD_SEEDS"), 10, 64)
	}
	if n == 0 {
		if n = fewSeeds; raced {
			n = fewRaced
		}
	}
	var all tally
	began := time.Now()
	t.Run("all", func(t *testing.T) {
		for seed := *fromFlag; seed < *fromFlag+n; seed++ {
			t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
				t.Parallel()
				runSeed(t, seed, &all, false)
			})
		}
	})
	t.Logf("%s; %.1f s", &all, time.Since(began).Seconds())
}

//go:embed testdata/seeds
var pastSeeds string

// TestPastSeeds runs those that once found something.
func TestPastSeeds(t *testing.T) {
	var all tally
	for line := range strings.Lines(pastSeeds) {
		number, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if number == "" || number == "#" {
			continue
		}
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(number, func(t *testing.T) {
			t.Parallel()
			t.Log(what)
			runSeed(t, seed, &all, false)
		})
	}
}

// TestSeed runs one seed and tells its history.
func TestSeed(t *testing.T) {
	if *seedFlag != 0 {
		cryptotest.SetGlobalRandom(t, *seedFlag) // stream and member ids, as far as they are drawn in the same order
		runSeed(t, *seedFlag, new(tally), true)
	}
}

func runSeed(t *testing.T, seed uint64, all *tally, tell bool) {
	t.Helper()
	o := run(t, seed)
	all.add(o)
	for i, text := range o.wrongs {
		if i == 20 {
			t.Errorf("… and %d more", len(o.wrongs)-i)
			break
		}
		t.Error(text)
	}
	if len(o.wrongs) > 0 && !tell {
		t.Errorf("to see it again: go test ./internal/world -run 'TestSeed$' -world.seed=%d", seed)
	}
	if tell {
		t.Logf("%+v\n%s", o.plan, o.history)
	}
}
