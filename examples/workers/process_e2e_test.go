//go:build e2e

package workers_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait of these tests. It is long because it is no
// promise: machines that build and test at once are slow.
const patience = 90 * time.Second

// process is a gateway or a worker that runs.
type process struct {
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

// start runs a program in a folder, with environment besides the test's own. The
// end of the test kills it, and shows what it printed if the test has failed.
func start(t testing.TB, name, folder string, environment []string, command ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, exited: make(chan struct{})}
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
		p.kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, p.log.String())
		}
	})
	return p
}

// kill ends the process as a crash would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // its one error says that it has ended already
	<-p.exited
}

// terminate asks the process to end, waits until it has, and gives its exit code.
func (p *process) terminate() int {
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

// repository is the top of the checkout, from where the examples are run.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// build compiles a program of this repository and gives the file.
func build(t testing.TB, folder, program string) string {
	t.Helper()
	file := filepath.Join(folder, filepath.Base(program)+".exe") // a name that every system runs
	cmd := exec.Command("go", "build", "-o", file, "./"+program)
	cmd.Dir = repository()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return file
}
