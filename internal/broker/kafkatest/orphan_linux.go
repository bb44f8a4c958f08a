package kafkatest

import "syscall"

// orphan makes the system kill a broker whose test process has died, say by a
// test timeout: no cleanup runs then.
func orphan() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
