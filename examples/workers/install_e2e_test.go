//go:build e2e

package workers_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// TestInstall fetches what the workers need, so that the tests that run them
// need not wait for the registries.
func TestInstall(t *testing.T) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) { l.installed(t) })
	}
}

// installed gives a folder with the worker and all that it needs: a copy of the
// worker's own folder, in which the commands that its README names have run. It
// stands in the user's cache folder under the hash of what was copied, and
// appears whole, by a rename: tests that run at once may all come here, and
// whoever comes second throws its copy away.
func (l language) installed(t testing.TB) string {
	t.Helper()
	source := filepath.Join(exampletest.Repository(), "examples", "workers", l.name)
	if len(l.install) == 0 {
		return source
	}
	files, hash, err := filesOf(source)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("find the cache folder: %v", err)
	}
	cache = filepath.Join(cache, "caddy-osmosis", "workers")
	folder := filepath.Join(cache, l.name+"-"+hash)
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatalf("make the cache folder: %v", err)
	}
	scratch, err := os.MkdirTemp(cache, "install-")
	if err != nil {
		t.Fatalf("make the cache folder: %v", err)
	}
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, l.name)
	if err := copyFiles(made, source, files); err != nil {
		t.Fatal(err)
	}
	for _, command := range l.install {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = made
		out, err := cmd.CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			t.Fatalf("install %s: %v", l.needs, err)
		}
		if err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	if err := os.Rename(made, folder); err != nil {
		if _, there := os.Stat(folder); there != nil {
			t.Fatalf("move the worker into the cache: %v", err)
		}
	}
	return folder
}

// built names what building a worker in its folder leaves behind.
var built = []string{"venv", "node_modules", "target"}

// filesOf lists the files of a worker's folder, with a hash of them all.
func filesOf(folder string) (files []string, hash string, err error) {
	sum := sha256.New()
	err = fs.WalkDir(os.DirFS(folder), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(built, path) {
				return fs.SkipDir
			}
			return nil
		}
		content, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n%s", path, len(content), content)
		files = append(files, path)
		return nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("read the worker's folder: %w", err)
	}
	return files, fmt.Sprintf("%x", sum.Sum(nil)[:8]), nil
}

// copyFiles copies files from one folder to another.
func copyFiles(to, from string, files []string) error {
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(from, file))
		if err != nil {
			return fmt.Errorf("copy the worker: %w", err)
		}
		target := filepath.Join(to, file)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("copy the worker: %w", err)
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return fmt.Errorf("copy the worker: %w", err)
		}
	}
	return nil
}
