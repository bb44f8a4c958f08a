package supervisor

import (
	"os"
	"syscall"
)

// self is the program of this process, also when its file was replaced since.
func self() string { return "/proc/self/exe" }

// prSetChildSubreaper is PR_SET_CHILD_SUBREAPER, for which syscall has no name.
const prSetChildSubreaper = 36

// adopt has descendants whose parents end become children of this process, which
// then waits for them. Otherwise they are for process 1 to wait for; in a container
// that is Caddy, which does not, and they would stay in their group as zombies.
func adopt() {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0, 0, 0, 0)
	_ = os.WriteFile("/proc/self/comm", []byte(processName), 0) // else ps calls it exe
}

// dieWith has the command die with this process.
func dieWith(attributes *syscall.SysProcAttr) { attributes.Pdeathsig = syscall.SIGKILL }
