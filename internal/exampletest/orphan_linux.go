package exampletest

import "syscall"

// orphan makes the system kill what this test has started when the test itself
// dies, say by a timeout: no cleanup runs then.
func orphan() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
