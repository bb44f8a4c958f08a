// Package world has no code of its own: its tests run several gateways, the
// sites and workers behind them and their clients around the fake broker, do to
// them what processes, networks and brokers do, and look at everything that
// happened. It is where a rule of the project is broken first when it can be.
//
// A run is made from a seed. The seed decides the topics, the options, what
// clients send, how the site answers each request, and which faults come when;
// nothing is drawn while the run goes on except from generators that the seed
// made for one client, one connection or one reader. The clock is testing/synctest's,
// so minutes take fractions of a second.
//
//	go test ./internal/world                                  # some seeds, and those that once failed
//	go test ./internal/world -run TestSeeds -world.seeds=1000 # more; or OSMOSIS_WORLD_SEEDS=1000
//	go test ./internal/world -run TestSeeds -world.from=5000  # others
//	go test ./internal/world -run TestSeed$ -world.seed=17    # one, with its history
//
// OSMOSIS_WORLD_DEBUG=1 puts all log lines and what
// members ask their coordinators into the history.
//
// A failing seed is told with the command that repeats it; testdata/seeds keeps
// those that found something.
//
// # A gateway
//
// A gateway here is what the root package makes of one process: a broker client,
// the ingress, the claims, the hub and a delivery, wired as the root package wires
// them (pool.go, queue.go, idempotency.go and deliveries.go there). What differs:
// a request comes as a function call, not over HTTP; there is no pool, because a
// reload here calls what the pool's entries call (Delivery.Use, or closing the
// delivery of a route that is gone); topics are there from the beginning, led as
// the seed says; the window of idempotency keys and the ttl are the plan's.
//
// # Faults
//
// A process has a network of its own, through which everything it does outside
// of itself passes: connections, calls to the site, answers to clients.
//
//   - Killed, its connections end at that moment, and nothing passes any more, for
//     ever. Its goroutines run on for a while, since Go cannot stop them, but
//     they change nothing outside. Calls to the site end then.
//   - Frozen, everything stands that would pass, and goes on at the thaw. Connections
//     stay open, and brokers wait. Its timers run on meanwhile, so that it may
//     have noticed by the thaw that its time was over; a process that was really stopped
//     notices at the thaw at the earliest. Such a race of the first
//     instructions after a thaw is met here only at the gates: a reply that was
//     about to be written when the freeze began is written after it.
//   - Cut off, its connections end and new ones are refused, from one broker or all.
//   - Stalled, its connections stand: nothing is lost and nothing arrives.
//   - Answers are lost: a request arrives, and its connection ends before the answer.
//   - Requests are late: the broker holds a produce request for longer than anybody waits, and
//     then does it.
//
// Brokers move leaders and coordinators, and refuse requests with the errors that
// Kafka gives.
//
// # What is checked
//
// The checker knows the plan, the history and the logs of all topics as they are at the end,
// which it reads with another client. See the files check_*_test.go, a rule each.
package world
