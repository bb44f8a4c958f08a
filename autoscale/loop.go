package autoscale

import (
	"context"
	"time"
)

// Source gives a Loop its looks at a topic and a group.
type Source interface {
	// Next waits for the next look, and gives it. With wake it comes also as
	// soon as a record is there that waits. A broker that tells nothing makes a
	// look whose figures are Unknown; an error means that ctx has ended.
	Next(ctx context.Context, wake bool) (Measurement, error)
}

// Lease says whether this process is the one that decides.
type Lease interface {
	// Held tells whether it is now, and since which generation of the lease.
	Held() (generation int32, held bool)
	// Changed gives a channel that is closed at the next change of what Held tells.
	Changed() <-chan struct{}
}

// Status is what a Loop has come to.
type Status struct {
	Topic, Group string
	// Deciding says that this process holds the lease.
	Deciding   bool
	Generation int32
	DryRun     bool
	// Running is how many workers there are; Unknown if nobody can tell.
	Running int
	// Decisions are the last ones, oldest first: those that changed the number
	// or its reason.
	Decisions []Decision
	// Oldest is for how long the oldest record has waited, 0 if none does.
	Oldest time.Duration
}
