package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Profile fetches a CPU profile of the process, which lasts this long and is to
// be under load meanwhile, writes it to the file, and prints where the time
// goes: first by what each function does itself, then with all that it calls.
func (r *Rig) Profile(ctx context.Context, p *Process, duration time.Duration, file string) error {
	seconds := max(int(duration.Seconds()), 1)
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.Admin, seconds)
	content, err := fetch(ctx, url)
	if err != nil {
		return fmt.Errorf("fetch the profile of %s: %w", p.Name, err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the profile of %s: %w", p.Name, err)
	}
	for _, order := range []string{"flat", "cum"} {
		if err := r.top(ctx, fmt.Sprintf("CPU of %s, %s", p.Name, order), "-"+order, file); err != nil {
			return err
		}
	}
	return nil
}

// HeapProfile fetches a profile of what is in the process' heap after a
// collection, writes it to the file, and prints who allocated it.
func (r *Rig) HeapProfile(ctx context.Context, p *Process, file string) error {
	content, err := fetch(ctx, "http://"+p.Admin+"/debug/pprof/heap?gc=1")
	if err != nil {
		return fmt.Errorf("fetch the heap profile of %s: %w", p.Name, err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the heap profile of %s: %w", p.Name, err)
	}
	return r.top(ctx, "Heap of "+p.Name, "-sample_index=inuse_space", file)
}

// top prints the top of a profile as a section.
func (r *Rig) top(ctx context.Context, heading, option, file string) error {
	full, err := filepath.Abs(file) // pprof takes other names for addresses
	if err != nil {
		return fmt.Errorf("name the profile: %w", err)
	}
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", option, "-nodecount", "45", full).CombinedOutput()
	if err != nil {
		return fmt.Errorf("read the profile: %w\n%s", err, out)
	}
	fmt.Fprintf(r.Out, "\n### %s\n\n```\n%s```\n", heading, out)
	return nil
}

// Allocations fetches a profile of what the process allocates in this time,
// writes it to the file, and prints the top.
func (r *Rig) Allocations(ctx context.Context, p *Process, duration time.Duration, file string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/allocs?seconds=%d", p.Admin, max(int(duration.Seconds()), 1))
	content, err := fetch(ctx, url)
	if err != nil {
		return fmt.Errorf("fetch the allocations of %s: %w", p.Name, err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the allocations of %s: %w", p.Name, err)
	}
	return r.top(ctx, "Allocations of "+p.Name, "-sample_index=alloc_space", file)
}

// ProfileUnder is Profile and then Allocations, into the file with .allocs behind
// its name, with the load beside it, which is given for how long to go on.
func (r *Rig) ProfileUnder(ctx context.Context, p *Process, duration time.Duration, file string, load func(time.Duration) error) error {
	const margin = 2 * time.Second // what comes before and between the profiles
	loaded := make(chan error, 1)
	go func() { loaded <- load(2*duration + margin) }()
	err := r.Profile(ctx, p, duration, file)
	if err == nil {
		err = r.Allocations(ctx, p, duration, file+".allocs")
	}
	return errors.Join(err, <-loaded)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", response.StatusCode, content)
	}
	return content, err
}
