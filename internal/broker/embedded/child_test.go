package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// What tells the tests' own binary that it is to be a broker.
const (
	childDirectory = "OSMOSIS_TEST_EMBEDDED_DIRECTORY"
	childRetention = "OSMOSIS_TEST_EMBEDDED_RETENTION"
	childKeepFree  = "OSMOSIS_TEST_EMBEDDED_KEEP_FREE"
)

func TestMain(m *testing.M) {
	if directory := os.Getenv(childDirectory); directory != "" {
		if err := beBroker(directory); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// beBroker runs a broker, whose janitor never rests, until its input ends. It
// says where it is.
func beBroker(directory string) error {
	retention, err := time.ParseDuration(os.Getenv(childRetention))
	if err != nil {
		return err
	}
	keep, err := strconv.ParseInt(os.Getenv(childKeepFree), 10, 64)
	if err != nil {
		return err
	}
	b, err := Open(Config{Directory: directory, Listen: "127.0.0.1:0", Retention: retention, MaxBytes: 256 << 20, KeepFree: keep})
	if err != nil {
		return err
	}
	fmt.Println(b.Address())
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	for ctx.Err() == nil {
		_ = b.janitor.tidy(ctx) // fails while the disk is full
	}
	return b.Close()
}

// child is a broker in a process of its own.
type child struct {
	command *exec.Cmd
	input   io.Closer
	address string
}

// startChild runs the tests' binary as a broker, within wrap if that is given.
func startChild(t *testing.T, directory string, retention time.Duration, keep int64, wrap ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	line := slices.Concat(wrap, []string{self})
	command := exec.Command(line[0], line[1:]...) //nolint:gosec // the test's own
	command.Env = append(os.Environ(), childDirectory+"="+directory, childRetention+"="+retention.String(), childKeepFree+"="+strconv.FormatInt(keep, 10))
	var said strings.Builder
	command.Stderr = &said
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{command: command, input: input}
	t.Cleanup(c.kill)
	address, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		c.kill()
		t.Fatalf("the broker did not start: %v\n%s", err, said.String())
	}
	c.address = strings.TrimSpace(address)
	return c
}

// kill ends the process as a crash would.
func (c *child) kill() {
	_ = c.command.Process.Kill()
	_ = c.command.Wait()
}
