// Package rig is what the benchmarks stand on: a real Kafka, the programs under
// test as processes of their own, their CPU time and memory as the system
// counts them, rounds that take turns, and tables.
//
//	func main() { rig.Main(run) }
//
//	func run(ctx context.Context, r *rig.Rig) error {
//		gateway, err := r.Caddy(ctx, "osmosis", global, site)
//		…
//	}
//
// # Concurrency
//
// A Rig and its processes are for one goroutine.
package rig

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// Rig is one run of a benchmark: a folder, processes, and what to undo at the end.
type Rig struct {
	// Out is where tables go. What is said besides goes to standard error, so
	// that the output is a document.
	Out io.Writer

	folder string
	// programs is where those under test are, and built which of them are of now.
	programs string
	built    map[string]bool
	undo     []func()
}

var programs = flag.String("programs", "", "the `folder` in which the programs under test are built, and kept for the next benchmark; default: one that goes when this one ends")

// Main parses the flags and runs a benchmark. An interrupt ends it early; in
// any case all that it started is ended too.
func Main(run func(context.Context, *Rig) error) {
	flag.Parse()
	if err := begin(run); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func begin(run func(context.Context, *Rig) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	folder, err := os.MkdirTemp("", "osmosis-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the benchmark: %w", err)
	}
	r := &Rig{Out: os.Stdout, folder: folder, programs: cmp.Or(*programs, folder), built: make(map[string]bool)}
	defer r.end()
	err = run(ctx, r)
	if ctx.Err() != nil {
		return errors.Join(errors.New("the benchmark was interrupted"), err)
	}
	return err
}

// end undoes everything, the latest first.
func (r *Rig) end() {
	for i := len(r.undo) - 1; i >= 0; i-- {
		r.undo[i]()
	}
	os.RemoveAll(r.folder)
}

// onEnd has something done at the end of the run.
func (r *Rig) onEnd(do func()) { r.undo = append(r.undo, do) }

// Say tells what the benchmark is about to do.
func (r *Rig) Say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// build compiles a package of this module and gives the program. Compiling
// Caddy takes a minute or two the first time, and linking it a few seconds.
func (r *Rig) build(ctx context.Context, pkg string) (string, error) {
	program, err := filepath.Abs(filepath.Join(r.programs, filepath.Base(pkg)))
	if err != nil {
		return "", fmt.Errorf("find the folder of the programs: %w", err)
	}
	if r.built[program] {
		return program, nil
	}
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	r.Say("building %s", pkg)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, pkg)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	r.built[program] = true
	return program, nil
}
