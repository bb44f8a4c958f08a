// Command cmd plays all policies on all traces, prints the table, and writes it
// and a plot of each trace into a folder:
//
//	go run ./autoscale/sim/cmd [-seeds 20] [-first 1001] [-trace name] [-out folder]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale/sim"
)

func main() {
	seeds := flag.Int("seeds", 20, "how many `seeds` each trace is played with")
	first := flag.Uint64("first", 1001, "the first `seed`; the policies were made with 1 to 20")
	only := flag.String("trace", "", "play only the traces whose `name` contains this")
	out := flag.String("out", "", "write table.md and the plots into this `folder`")
	flag.Parse()
	if err := play(*first, *seeds, *only, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play makes all comparisons, one after the other.
func play(first uint64, seeds int, only, out string) error {
	if seeds < 1 {
		return fmt.Errorf("-seeds %d: at least one is needed", seeds)
	}
	var all []sim.Comparison
	for _, trace := range sim.Traces() {
		if strings.Contains(trace.Name, only) {
			fmt.Fprintln(os.Stderr, trace.Name)
			all = append(all, sim.Compare(sim.Defaults(), trace, first, seeds))
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("-trace %q: no trace is called that", only)
	}
	var table bytes.Buffer
	if err := sim.WriteTable(&table, all); err != nil {
		return err
	}
	if _, err := os.Stdout.Write(table.Bytes()); err != nil {
		return err
	}
	if out == "" {
		return nil
	}
	if err := os.MkdirAll(out, 0o755); err != nil { //nolint:gosec // results are for all to read
		return fmt.Errorf("make the folder: %w", err)
	}
	files := map[string][]byte{"table.md": table.Bytes()}
	for _, c := range all {
		files[strings.ReplaceAll(c.Trace.Name, " ", "-")+".svg"] = sim.Plot(c)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(out, name), content, 0o644); err != nil { //nolint:gosec // the same
			return fmt.Errorf("write a result: %w", err)
		}
	}
	return nil
}
