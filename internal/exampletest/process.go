package exampletest

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait. It is long because it is no promise: machines that
// build and test at once are slow.
const patience = 90 * time.Second

// Process is a gateway or an application that runs.
type Process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
	log    output
}

// output collects what a process prints; it may be read meanwhile.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Start runs a program at the top of the checkout, with environment besides the
// test's own. The end of the test kills it, and shows what it printed if the test
// has failed, as it does if the process has noticed a data race.
func Start(t testing.TB, name string, command []string, environment ...string) *Process {
	t.Helper()
	return StartIn(t, Repository(), name, command, environment...)
}

// StartIn does so in another folder.
func StartIn(t testing.TB, folder, name string, command []string, environment ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, exited: make(chan struct{})}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Dir = folder
	p.cmd.Env = append(os.Environ(), environment...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = orphan()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // its error is in ProcessState, and expected from a kill
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.log.String(), "WARNING: DATA RACE") {
			t.Errorf("a data race in %s: see what it printed", name)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, p.log.String())
		}
	})
	return p
}

// Kill ends the process as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // its one error says that it has ended already
	<-p.exited
}

// Terminate asks the process to end, waits until it has, and gives its exit code.
func (p *Process) Terminate() int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatalf("%s had ended before it was told to: %v", p.name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("%s still runs %s after it was told to end", p.name, patience)
	}
	return p.cmd.ProcessState.ExitCode()
}

// AwaitSite waits until the process answers HTTP at a URL, whatever it says.
func (p *Process) AwaitSite(url string) {
	p.t.Helper()
	p.await("it answers at "+url, func() error {
		response, err := http.Get(url)
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// Await waits until the process has printed a text.
func (p *Process) Await(text string) {
	p.t.Helper()
	p.await("it prints "+strconv.Quote(text), func() error {
		if !strings.Contains(p.log.String(), text) {
			return errors.New("not printed")
		}
		return nil
	})
}

// Printed gives what the process has printed so far.
func (p *Process) Printed() string { return p.log.String() }

// await tries again and again while the process runs.
func (p *Process) await(what string, try func() error) {
	p.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.exited:
			p.t.Fatalf("%s has ended: %s", p.name, p.cmd.ProcessState)
		case <-deadline:
			p.t.Fatalf("%s: %s: not after %s: %v", p.name, what, patience, err)
		}
	}
}
