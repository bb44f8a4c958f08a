//go:build unix

package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The commands of these tests are this test binary, which plays the part that
// this variable of its environment says.
const part = "SUPERVISOR_TEST"

func TestMain(m *testing.M) {
	switch name, _, _ := strings.Cut(os.Getenv(part), " "); name {
	case "":
		goleak.VerifyTestMain(m)
	case "gateway":
		playGateway()
	case "parent", "child":
		play(name)
	}
	os.Exit(4)
}

// playGateway is a process that runs a command: the part in its environment without
// the first word.
func playGateway() {
	_, next, _ := strings.Cut(os.Getenv(part), " ")
	grace, err := time.ParseDuration(os.Args[1])
	if err != nil {
		panic(err)
	}
	err = Run(context.Background(), Command{Path: os.Args[0], Args: os.Args[:1], Env: playing(next, "GATE="+os.Getenv("GATE")), Output: os.Stdout, Grace: grace}, func(int) {})
	panic(err)
}

// play is a command, or the child that it has; neither looks at its standard input.
// Told to stop, the parent ends at once, and the child when GATE lets it. Words behind
// the part change that: of a "stubborn" pair nobody minds SIGTERM, and a parent that
// "exits" does so once its child is ready.
func play(name string) {
	asked, parent := make(chan os.Signal, 8), os.Getppid()
	words := os.Getenv(part)
	stubborn := strings.Contains(words, "stubborn")
	if name == "child" || stubborn {
		signal.Notify(asked, syscall.SIGTERM)
	}
	if name == "parent" {
		read, write, err := os.Pipe()
		if err != nil {
			panic(err)
		}
		child := exec.Command(os.Args[0])
		child.Env = playing(strings.Replace(words, "parent", "child", 1), "GATE="+os.Getenv("GATE"))
		child.Stdout, child.ExtraFiles = os.Stdout, []*os.File{write}
		if err := child.Start(); err != nil {
			panic(err)
		}
		write.Close()
		_, _ = io.Copy(io.Discard, read)
		fmt.Printf("supervisor %d\n", os.Getppid())
		if strings.Contains(words, "exits") {
			os.Exit(3)
		}
		for range asked {
			fmt.Println("parent was asked to stop")
		}
	}
	os.NewFile(3, "ready").Close()
	for range asked {
		fmt.Printf("child was asked to stop\n")
		if stubborn {
			continue
		}
		conn, err := net.Dial("unix", os.Getenv("GATE"))
		if err == nil {
			_, _ = io.Copy(io.Discard, conn)
			for os.Getppid() == parent { // it is about to end
				<-time.After(time.Millisecond)
			}
			fmt.Printf("child of %d has finished\n", os.Getppid())
		}
		os.Exit(0)
	}
}

// playing is an environment in which the test binary plays a part.
func playing(words string, more ...string) []string {
	return append([]string{part + "=" + words, "HOME=" + os.Getenv("HOME")}, more...)
}

// long is a grace period that no test waits for, patience a bound for what has to
// happen.
const (
	long     = time.Hour
	patience = 30 * time.Second
)

// running is a command that Run runs.
type running struct {
	t     *testing.T
	stop  context.CancelFunc
	lines *bufio.Scanner // that it and its child print, to the end of both
	ended chan error
}

// run runs the command of that part. The test fails if it does not end.
func run(t *testing.T, part string, grace time.Duration, more ...string) *running {
	t.Helper()
	output, printed := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{t: t, stop: stop, lines: bufio.NewScanner(output), ended: make(chan error, 1)}
	c := Command{Path: os.Args[0], Args: os.Args[:1], Env: playing(part, more...), Output: printed, Grace: grace}
	go func() {
		r.ended <- Run(ctx, c, func(int) {})
		printed.Close()
	}()
	watchdog := time.AfterFunc(patience, func() {
		t.Error("not ended in time")
		output.CloseWithError(errors.New("no patience left"))
	})
	t.Cleanup(func() {
		stop()
		for r.lines.Scan() {
			t.Logf("not read: %s", r.lines.Text())
		}
		watchdog.Stop()
	})
	return r
}

// await reads lines to one that begins with a text, and gives the rest of it.
func (r *running) await(text string) string {
	r.t.Helper()
	for r.lines.Scan() {
		if rest, ok := strings.CutPrefix(r.lines.Text(), text); ok {
			return rest
		}
	}
	r.t.Fatalf("nothing printed that begins with %q: %v", text, r.lines.Err())
	return ""
}

// ends reads to the end, and compares the text of what Run gave.
func (r *running) ends(want string) {
	r.t.Helper()
	for r.lines.Scan() {
	}
	if err := <-r.ended; err == nil || err.Error() != want {
		r.t.Errorf("%v, want %q", err, want)
	}
}

// gate gives a variable for commands that hold on until open is called.
func gate(t *testing.T) (variable string, open func()) {
	t.Helper()
	address := filepath.Join(t.TempDir(), "gate")
	l, err := net.Listen("unix", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "GATE=" + address, func() {
		t.Helper()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// A command and its child are both asked to stop, and have the time that they need.
func TestStopWithTheRealProcess(t *testing.T) {
	variable, open := gate(t)
	r := run(t, "parent", long, variable)
	supervisor := r.await("supervisor ")
	r.stop()
	r.await("child was asked to stop")
	open()
	parent := r.await("child of ")
	if runtime.GOOS == "linux" && parent != supervisor+" has finished" {
		t.Errorf("the supervisor %s does not wait for the child of %s", supervisor, parent)
	}
	r.ends("signal: terminated")
	wantGone(t, supervisor)
}

func TestWhatDoesNotStopIsKilledWithTheRealProcess(t *testing.T) {
	r := run(t, "parent stubborn", 100*time.Millisecond)
	supervisor := r.await("supervisor ")
	r.stop()
	r.ends("signal: killed")
	wantGone(t, supervisor)
}

// What a command leaves behind when it ends by itself is asked to stop too.
func TestWhatIsLeftBehindWithTheRealProcess(t *testing.T) {
	variable, open := gate(t)
	r := run(t, "parent exits", long, variable)
	r.await("child was asked to stop")
	open()
	r.await("child of")
	r.ends("exit status 3")

	run(t, "parent exits stubborn", 100*time.Millisecond).ends("exit status 3")
}

// Who asks the supervisor to end means its command.
func TestTheSupervisorIsAskedToStopWithTheRealProcess(t *testing.T) {
	variable, open := gate(t)
	r := run(t, "parent", long, variable)
	send(t, r.await("supervisor "), syscall.SIGTERM)
	r.await("child was asked to stop")
	open()
	r.ends("signal: terminated")
}

func TestTheSupervisorIsKilledWithTheRealProcess(t *testing.T) {
	r := run(t, "parent stubborn", long)
	send(t, r.await("supervisor "), syscall.SIGKILL)
	r.ends("supervisor: signal: killed")
}

func TestCommandThatCannotStartWithTheRealProcess(t *testing.T) {
	file := filepath.Join(t.TempDir(), "worker")
	if err := os.WriteFile(file, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Command{Path: file, Args: []string{"worker"}, Output: io.Discard}, func(int) { t.Error("started") })
	if want := fmt.Sprintf("start command: exec %s: permission denied", file); !errors.Is(err, ErrStart) || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
}

// A process that is killed takes its commands along, and what those have started,
// although nobody of them minds SIGTERM or looks at standard input.
func TestAKilledProcessTakesItsCommandsAlongWithTheRealProcess(t *testing.T) {
	gateway(t, "parent stubborn", 100*time.Millisecond)
}

// They are asked first, and have the grace period to finish.
func TestCommandsOfAKilledProcessFinishWithTheRealProcess(t *testing.T) {
	variable, open := gate(t)
	gateway(t, "parent", long, variable).await("child was asked to stop")
	open()
}

// gateway kills a process of its own that runs the command of that part. The test
// fails if what was printed does not end: then a process is left that has its
// output.
func gateway(t *testing.T, words string, grace time.Duration, more ...string) *running {
	t.Helper()
	output, printed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(os.Args[0], grace.String())
	process.Env, process.Stdout, process.Stderr = playing("gateway "+words, more...), printed, os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	printed.Close()
	r := &running{t: t, lines: bufio.NewScanner(output)}
	supervisor := r.await("supervisor ")
	t.Cleanup(func() {
		if err := output.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Error(err)
		}
		for r.lines.Scan() {
		}
		if err := r.lines.Err(); err != nil {
			t.Errorf("something is left of the commands: %v", err)
			send(t, supervisor, syscall.SIGTERM)
		}
		output.Close()
	})
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait()
	return r
}

// send signals a process.
func send(t *testing.T, process string, s syscall.Signal) {
	t.Helper()
	pid, err := strconv.Atoi(process)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, s); err != nil {
		t.Errorf("%s to %d: %v", s, pid, err)
	}
}

// wantGone fails if there is such a process, and sends it nothing.
func wantGone(t *testing.T, process string) {
	t.Helper()
	pid, err := strconv.Atoi(process)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", pid, err)
	}
}
