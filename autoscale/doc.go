// Package autoscale sizes the workers of a topic by what is waiting for them.
//
// It is made of three things that meet in a Loop: measure what flows in and out
// (a Source), decide how many workers that takes (Decide, a pure function), act
// on it (a Crew keeps a number of workers running). Where several processes do
// that for the same workers, a Lease says which of them decides. DESIGN.md has
// the choices and what they cost.
//
// The package knows no Caddy; the modules that a configuration names live in the
// root package.
//
// # Concurrency
//
// A Loop, a GroupLease and a Crew are safe for use by many goroutines. A Loop
// keeps two goroutines, Processes one a worker, and their Close waits for all of
// them. A Source has one user at a time, and History and Decide need none.
//
// # What it does not do
//
// It does not place workers on machines, nor start machines for them: that is
// for the Crew, or for what the Crew asks. It scales nothing by CPU or memory.
package autoscale
