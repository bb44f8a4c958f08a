//go:build e2e

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// patience bounds every wait of these tests. It is long because it is no
// promise: machines that build and test at once are slow.
const patience = 90 * time.Second

// program is the binary under test, built once, with the race detector.
var program string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "osmosis-e2e")
	if err != nil {
		panic(err)
	}
	if programs := os.Getenv(exampletest.Programs); programs != "" {
		program = filepath.Join(programs, "osmosis")
	} else {
		program = filepath.Join(folder, "osmosis")
		build := exec.Command("go", "build", "-race", "-o", program, ".")
		build.Stdout, build.Stderr = os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	os.RemoveAll(folder)
	os.Exit(code)
}

// gateway is a process of the program with a Caddyfile of its own.
type gateway struct {
	t         testing.TB
	folder    string
	Caddyfile string
	Admin     string // address of Caddy's admin endpoint
	URL       string // of the site

	cmd    *exec.Cmd
	exited chan struct{}
	log    syncBuffer
}

// syncBuffer collects output that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newGateway writes a Caddyfile: global is what goes into the osmosis block,
// site what goes into the site's.
func newGateway(t testing.TB, global, site string) *gateway {
	t.Helper()
	g := &gateway{t: t, folder: t.TempDir(), Admin: exampletest.FreeAddress(t)}
	address := exampletest.FreeAddress(t)
	g.URL = "http://" + address
	g.Caddyfile = filepath.Join(g.folder, "Caddyfile")
	g.configure(global, site)
	g.endWithTest()
	return g
}

// endWithTest kills what still runs at the end of the test, and shows its log
// if the test failed. A data race in the gateway fails it.
func (g *gateway) endWithTest() {
	g.t.Cleanup(func() {
		g.kill()
		if strings.Contains(g.log.String(), "WARNING: DATA RACE") {
			g.t.Error("a data race in the gateway: see its log")
		}
		if g.t.Failed() {
			g.t.Logf("log of the gateway:\n%s", g.log.String())
		}
	})
}

// configure writes the Caddyfile anew, for a start or a reload.
func (g *gateway) configure(global, site string) {
	g.t.Helper()
	text := fmt.Sprintf("{\n\tadmin %s\n\tosmosis {\n%s\n\t}\n}\n\n%s {\n%s\n}\n", g.Admin, global, g.URL, site)
	if err := os.WriteFile(g.Caddyfile, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// command prepares one of the program's commands, with data of this test's own.
func (g *gateway) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = repository()
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+g.folder, "XDG_CONFIG_HOME="+g.folder, "HOME="+g.folder, "GOCACHE="+goEnv("GOCACHE"), "GOMODCACHE="+goEnv("GOMODCACHE"))
	return cmd
}

// repository is the top of the checkout, where the examples say to start.
func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// goEnv keeps the go command's caches although the home folder is another.
var goEnv = func() func(string) string {
	var mu sync.Mutex
	known := make(map[string]string)
	return func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		if known[name] == "" {
			out, err := exec.Command("go", "env", name).Output()
			if err != nil {
				panic(err)
			}
			known[name] = strings.TrimSpace(string(out))
		}
		return known[name]
	}
}()

// start runs the gateway and waits until its site answers.
func (g *gateway) start() {
	g.t.Helper()
	g.cmd = g.command(context.Background(), "run", "--config", g.Caddyfile)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.exited = make(chan struct{})
	cmd, exited := g.cmd, g.exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	g.eventually("the site answers", func() error {
		select {
		case <-g.exited:
			g.t.Fatalf("the gateway ended: %s", g.log.String())
		default:
		}
		response, err := http.Get(g.URL + "/")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
}

// kill ends the process by SIGKILL.
func (g *gateway) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Signal(syscall.SIGKILL)
	<-g.exited
	g.cmd = nil
}

// stop ends the process as an operator would, by `stop`, and gives how long it took.
func (g *gateway) stop() time.Duration {
	g.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := g.command(ctx, "stop", "--address", g.Admin).CombinedOutput(); err != nil {
		g.t.Fatalf("stop: %v: %s", err, out)
	}
	select {
	case <-g.exited:
	case <-ctx.Done():
		g.t.Fatal("the gateway does not end")
	}
	g.cmd = nil
	return time.Since(began)
}

// reload loads the Caddyfile again.
func (g *gateway) reload() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if out, err := g.command(ctx, "reload", "--force", "--address", g.Admin, "--config", g.Caddyfile, "--adapter", "caddyfile").CombinedOutput(); err != nil {
		g.t.Fatalf("reload: %v: %s", err, out)
	}
}

// eventually tries until try succeeds or patience ends.
func (g *gateway) eventually(what string, try func() error) {
	g.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: not after %s: %v", what, patience, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}
