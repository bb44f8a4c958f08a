package exampletest

import (
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
