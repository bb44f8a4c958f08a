//go:build unix && !linux

package supervisor

import (
	"os"
	"syscall"
)

// self is the program of this process.
func self() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

// adopt and dieWith do nothing on systems that cannot.
func adopt() {}

func dieWith(*syscall.SysProcAttr) {}
