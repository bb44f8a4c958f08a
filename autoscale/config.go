package autoscale

import (
	"fmt"
	"time"
)

// Config says within which bounds and at which pace the workers of a topic
// follow its load. A zero field stands for its default.
type Config struct {
	// Min is the smallest number of workers. Default 0: without work there are none.
	Min int
	// Max is the largest number of workers. Default 10.
	Max int
	// Drain is how long what waits may take until it is done: the shorter, the
	// more workers a backlog brings. Default 10s.
	Drain time.Duration
	// Idle is how long nothing must have happened until the last worker goes.
	// It matters only where Min is 0. Default 1m.
	Idle time.Duration
	// Concurrency is how many records one worker works on at once. Default 1.
	Concurrency int
	// Keyed says that workers share a partition by key, as `deliver` does. Plain
	// consumers do not: a partition has one of them, and more workers than
	// partitions would have nothing to do.
	Keyed bool
	// Lead is how long a worker takes from being asked for until it works, the
	// rebalance included: what comes in until then is counted in. Default 10s.
	Lead time.Duration
	// UpEvery is the shortest time from one raise to the next, so that workers
	// can begin before it is told again that they are missing. Raises from 0,
	// by half or more, and within a second do not wait. Default 15s.
	UpEvery time.Duration
	// DownAfter is how long fewer workers must have been enough, and how long
	// the last change must be past, until their number is lowered by a fifth. A
	// smaller step waits for longer, up to four times, a large one for half. Default 30s.
	DownAfter time.Duration
	// Rebalances is how many changes an hour may bring: each stops all
	// consumers of the group for a moment. The fewer are left, the larger a
	// change must be; the last quarter is for raises by half or more. Changes
	// from 0 and to 0 stop nobody and are free. Default 60.
	Rebalances int
	// Stuck is how long a partition that a worker has may stand still until it is
	// left out: as poisoned if three members that had it are gone, else as slow once
	// that is ten times the work of a record as well. Where the work time is not
	// known, one member may work on a record for as long as it takes. Default 1m.
	Stuck time.Duration
	// Hold is how long the last number stays while the broker tells nothing.
	// After that it is Min, and at least 1. Default 10m.
	Hold time.Duration
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if c.Min < 0 || c.Max < 0 || c.Concurrency < 0 || c.Rebalances < 0 {
		return fmt.Errorf("numbers of workers, records and rebalances are not negative")
	}
	if d := c.withDefaults(); d.Min > d.Max {
		return fmt.Errorf("min %d is more than max %d: raise max", d.Min, d.Max)
	}
	for _, d := range []time.Duration{c.Drain, c.Idle, c.Lead, c.UpEvery, c.DownAfter, c.Stuck, c.Hold} {
		if d < 0 {
			return fmt.Errorf("duration %s is negative", d)
		}
	}
	return nil
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	number := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	span := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	number(&c.Max, 10)
	number(&c.Concurrency, 1)
	number(&c.Rebalances, 60)
	span(&c.Drain, 10*time.Second)
	span(&c.Idle, time.Minute)
	span(&c.Lead, 10*time.Second)
	span(&c.UpEvery, 15*time.Second)
	span(&c.DownAfter, 30*time.Second)
	span(&c.Stuck, time.Minute)
	span(&c.Hold, 10*time.Minute)
	return c
}

// floor is what is asked for where nothing is known: not zero.
func (c Config) floor() int { return max(c.Min, 1) }
