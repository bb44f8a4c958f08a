package exampletest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Repository is the top of the checkout, from where the examples are run.
func Repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Programs names a folder with the gateway, built with the race detector from
// this checkout: to link it takes seconds, and most examples want it. Without it
// each builds its own.
const Programs = "OSMOSIS_TEST_PROGRAMS"

// Gateway gives the gateway with the race detector in it, from Programs or built
// into a folder.
func Gateway(t testing.TB, folder string) string {
	t.Helper()
	if programs := os.Getenv(Programs); programs != "" {
		return filepath.Join(programs, "osmosis")
	}
	return Build(t, folder, "cmd/osmosis", "-race")
}

// Build compiles a program of this repository into a folder and gives the file.
func Build(t testing.TB, folder, program string, flags ...string) string {
	t.Helper()
	file := filepath.Join(folder, filepath.Base(program)+".exe") // a name that every system runs
	cmd := exec.Command("go", append(append([]string{"build", "-o", file}, flags...), "./"+program)...)
	cmd.Dir = Repository()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	return file
}

// goEnv gives a setting of the go command.
func goEnv(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatalf("go env %s: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}
