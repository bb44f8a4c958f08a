//go:build linux || darwin

package embedded

import "syscall"

// freeBytes tells how much room the disk of a directory has for this process.
func freeBytes(directory string) (bytes int64, known bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(directory, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // another type on macOS
}
