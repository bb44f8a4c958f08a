//go:build race

package world

// raced says that the race detector is in it.
const raced = true
