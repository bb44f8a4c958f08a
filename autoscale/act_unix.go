//go:build unix

package autoscale

import (
	"os/exec"
	"syscall"
)

// setGroup puts the command into a process group of its own, since what it
// starts, such as the program behind `go run`, has to stop with it.
func setGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// terminate asks the command and all it started to end.
func terminate(cmd *exec.Cmd) error {
	return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
}

// killGroup ends what is left of the command's group, if anything is.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}
