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
	full, err := filepath.Abs(file)
	if err != nil {
		return fmt.Errorf("name the profile of %s: %w", p.Name, err)
	}
	for _, order := range []string{"-flat", "-cum"} {
		cmd := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", order, "-nodecount", "45", full)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("read the profile of %s: %w\n%s", p.Name, err, out)
		}
		fmt.Fprintf(r.Out, "\n### CPU of %s, %s\n\n```\n%s```\n", p.Name, order[1:], out)
	}
	return nil
}

// ProfileUnder is Profile with the load beside it, which is given for how long to go on.
func (r *Rig) ProfileUnder(ctx context.Context, p *Process, duration time.Duration, file string, load func(time.Duration) error) error {
	const margin = time.Second // what comes before the profile begins
	loaded := make(chan error, 1)
	go func() { loaded <- load(duration + margin) }()
	err := r.Profile(ctx, p, duration, file)
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
