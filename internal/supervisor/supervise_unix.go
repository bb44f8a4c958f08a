//go:build unix

package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// processName is the name under which a process of this program is a supervisor. It
// does not contain the names of gateways: who kills those by name spares it.
const processName = "worker-supervisor"

// The files that a supervisor gets besides the command's own.
const (
	lifelineFile = 3 // ends when the command is to stop
	reportFile   = 4 // takes reports
)

const (
	// poll is how often a supervisor looks whether a group is empty whose leader
	// has ended. No system call waits for that.
	poll = 10 * time.Millisecond
	// killing is how long a supervisor waits for what it has killed. A process in
	// the middle of reading from a broken disk does not end.
	killing = time.Second
)

// init turns a process that Run has started into a supervisor. It does so here,
// and not where a program's main would have to call it, because each program that
// runs commands has to be able to supervise them: Caddy's, those that embed it, and
// tests. Whatever the program does else has not begun.
func init() {
	if len(os.Args) < 4 || os.Args[0] != processName {
		return
	}
	grace, err := time.ParseDuration(os.Args[1])
	if err != nil {
		return // a program of that name
	}
	supervise(grace, os.Args[2], os.Args[3:])
	os.Exit(0)
}

// supervise runs a command to its end.
//
// init runs on the process' first thread, which lives as long as the process. That
// matters to Pdeathsig: the system sends it when the thread ends that has started
// the command.
func supervise(grace time.Duration, path string, args []string) {
	syscall.CloseOnExec(lifelineFile)
	syscall.CloseOnExec(reportFile)
	lifeline, reports := os.NewFile(lifelineFile, "lifeline"), os.NewFile(reportFile, "reports")
	report := func(word, text string) { _, _ = fmt.Fprintf(reports, "%s%s\n", word, text) } // there may be nobody to read it
	asked := make(chan os.Signal, 1)
	// Caught, not ignored: the command would inherit that a signal is ignored.
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	adopt()
	attributes := &syscall.SysProcAttr{Setpgid: true}
	dieWith(attributes)
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attributes})
	if err != nil {
		report(reportFailed, fmt.Sprintf("exec %s: %v", path, err))
		return
	}
	report(reportStarted, fmt.Sprint(pid))

	stop, ended, empty := make(chan struct{}), make(chan string), make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lifeline)
		close(stop)
	}()
	go reap(pid, ended)
	how := "signal: killed" // if it is not known
	var graceOver, killed <-chan time.Time
	terminate := func() {
		if graceOver == nil {
			_ = syscall.Kill(-pid, syscall.SIGTERM)
			graceOver = time.After(grace)
		}
	}
	for over := false; !over; {
		select {
		case <-stop:
			stop = nil
			terminate()
		case <-asked:
			terminate()
		case how = <-ended:
			terminate() // what it has left behind
			go awaitEmpty(pid, empty)
		case <-graceOver:
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			killed = time.After(killing)
		case <-killed:
			over = true
		case <-empty:
			over = true
		}
	}
	report(reportEnded, how)
}

// reap waits for the command, and for those of its descendants whose own parents
// have ended, where the system gives them to this process.
func reap(command int, ended chan<- string) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			// Nobody is left, or nobody yet: an orphan may still come.
			<-time.After(poll)
		case pid == command && status.Signaled():
			ended <- "signal: " + status.Signal().String()
		case pid == command && status.Exited():
			ended <- fmt.Sprintf("exit status %d", status.ExitStatus())
		}
	}
}

// awaitEmpty waits until no process is in a group.
func awaitEmpty(group int, empty chan<- struct{}) {
	for syscall.Kill(-group, 0) == nil {
		<-time.After(poll)
	}
	close(empty)
}
