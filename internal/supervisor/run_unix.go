//go:build unix

package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Run runs a command and waits for its end and for that of its process group. When
// ctx ends, it stops the command. It calls started with the command's process ID
// once the command runs. The error says how the command ended.
//
// The command's standard input is a pipe that ends with this process.
func Run(ctx context.Context, c Command, started func(pid int)) error {
	lifeline, hold, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	defer hold.Close()
	defer lifeline.Close()
	reports, report, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	defer reports.Close()
	defer report.Close()

	cmd := exec.CommandContext(ctx, self())
	cmd.Args = append([]string{processName, c.Grace.String(), c.Path}, c.Args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Env, c.Output, c.Output
	cmd.ExtraFiles = []*os.File{lifelineFile - 3: lifeline, reportFile - 3: report}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // or Ctrl-C in a terminal would reach it
	cmd.Cancel = hold.Close
	cmd.WaitDelay = c.Grace + spare
	if _, err := cmd.StdinPipe(); err != nil { // Wait closes the pipe
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	lifeline.Close()
	report.Close()
	told := make(chan outcome, 1)
	go func() { told <- follow(bufio.NewScanner(reports), started) }()
	err = cmd.Wait()
	o := <-told
	switch {
	case o.failed != "":
		return fmt.Errorf("%w: %s", ErrStart, o.failed)
	case o.ended != "":
		return errors.New(o.ended)
	}
	return fmt.Errorf("supervisor: %w", err)
}

// outcome is what a supervisor has reported.
type outcome struct {
	pid           int
	failed, ended string
}

// The words that a report begins with.
const (
	reportStarted = "started "
	reportFailed  = "failed "
	reportEnded   = "ended "
)

// follow reads reports until the supervisor is gone. If it was killed, follow kills
// the group, which nobody supervises any more.
func follow(reports *bufio.Scanner, started func(pid int)) (o outcome) {
	for reports.Scan() {
		line := reports.Text()
		if text, ok := strings.CutPrefix(line, reportStarted); ok {
			o.pid, _ = strconv.Atoi(text)
			started(o.pid)
		}
		if text, ok := strings.CutPrefix(line, reportFailed); ok {
			o.failed = text
		}
		if text, ok := strings.CutPrefix(line, reportEnded); ok {
			o.ended = text
		}
	}
	if o.pid > 0 && o.ended == "" {
		_ = syscall.Kill(-o.pid, syscall.SIGKILL)
	}
	return o
}
