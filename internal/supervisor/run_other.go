//go:build !unix

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
)

// Run runs a command and waits for its end. When ctx ends, it kills the command:
// no signal asks a command to stop. It calls started with the command's process ID
// once the command runs. The error says how the command ended.
//
// The command's standard input is a pipe that ends with this process.
func Run(ctx context.Context, c Command, started func(pid int)) error {
	cmd := exec.CommandContext(ctx, c.Path)
	cmd.Args, cmd.Env, cmd.Stdout, cmd.Stderr = c.Args, c.Env, c.Output, c.Output
	cmd.WaitDelay = c.Grace
	if _, err := cmd.StdinPipe(); err != nil { // Wait closes the pipe
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	started(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return err
	}
	return errors.New("exit status 0")
}
