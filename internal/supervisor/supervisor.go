// Package supervisor runs a command that ends with the process that asked for it.
//
// A process that is killed cannot stop its children, and the system does not do
// it: a worker that does not notice goes on beside those that the next process
// starts. Linux can signal a child when its parent dies (Pdeathsig), but not the
// children of that child, such as the program behind `sh -c` or `go run`.
//
// So on Unix a small process stands between the two: the program of this process
// once more, which [Run] starts under another name and which turns into a
// supervisor before anything else of the program begins. It runs the command in a
// process group of its own and holds the reading end of a pipe. The pipe ends when
// the process at its other end wants the command to stop, and also when that
// process is gone, however it went. Then the supervisor sends SIGTERM to the
// group, and SIGKILL to what is left of the group after the grace period.
//
// The supervisor itself may be killed. If the process that asked is alive, it kills
// the group. If both are killed at once, Linux ends the command, and what the
// command has started stays.
//
// Out of reach are processes that leave the command's group, such as daemons.
//
// On systems other than Unix there is no supervisor. The command is killed when it
// is to stop, and a killed process leaves its commands behind.
//
// # Concurrency
//
// Run may be called by many goroutines. Each call has a supervisor of its own.
package supervisor

import (
	"errors"
	"io"
	"time"
)

// Command is what Run runs.
type Command struct {
	// Path is the program, Args its name and arguments.
	Path string
	Args []string
	// Env is the whole environment, as NAME=value.
	Env []string
	// Output gets what the command and its children print.
	Output io.Writer
	// Grace is how long the command may take to end after SIGTERM.
	Grace time.Duration
}

// ErrStart is wrapped by the error of a command that could not be started.
var ErrStart = errors.New("start command")

// spare is how much longer than its grace period a command may take to end until
// its supervisor is taken for stuck.
const spare = 5 * time.Second
