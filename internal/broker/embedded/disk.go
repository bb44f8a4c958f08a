package embedded

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// disk is the file system that the broker's files are on. Tests put one in its
// place that breaks off at any write.
type disk interface {
	OpenFile(name string, flag int, perm os.FileMode) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	RemoveAll(path string) error
	MkdirAll(path string, perm os.FileMode) error
	ReadDir(name string) ([]os.DirEntry, error)
	ReadFile(name string) ([]byte, error)
	Stat(name string) (os.FileInfo, error)
	// SyncDirectory makes the names in a directory survive a loss of power.
	SyncDirectory(name string) error
}

// file is an open file of a disk.
type file interface {
	io.ReadWriteCloser
	Seek(offset int64, whence int) (int64, error)
	Truncate(size int64) error
	Sync() error
}

// osDisk is the disk of the machine.
type osDisk struct{}

func (osDisk) OpenFile(name string, flag int, perm os.FileMode) (file, error) {
	f, err := os.OpenFile(name, flag, perm) //nolint:gosec // in the broker's own directory
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osDisk) Rename(from, to string) error                 { return os.Rename(from, to) }
func (osDisk) Remove(name string) error                     { return os.Remove(name) }
func (osDisk) RemoveAll(path string) error                  { return os.RemoveAll(path) }
func (osDisk) MkdirAll(path string, perm os.FileMode) error { return os.MkdirAll(path, perm) }
func (osDisk) ReadDir(name string) ([]os.DirEntry, error)   { return os.ReadDir(name) }
func (osDisk) ReadFile(name string) ([]byte, error)         { return os.ReadFile(name) } //nolint:gosec // in the broker's own directory
func (osDisk) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }

func (osDisk) SyncDirectory(name string) error {
	if runtime.GOOS == "windows" {
		return nil // it opens no directories, and keeps their names by itself
	}
	f, err := os.Open(name) //nolint:gosec // in the broker's own directory
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // a file system that has no such thing
	}
	return errors.Join(err, f.Close())
}

// replace writes a file anew: a crash leaves the old one or the new one.
func replace(d disk, name string, data []byte) error {
	temporary := name + ".tmp" // kfake removes such files when it starts
	f, err := d.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.Rename(temporary, name); err != nil {
		return err
	}
	return d.SyncDirectory(filepath.Dir(name))
}

// shorten cuts a file off after size bytes.
func shorten(d disk, name string, size int64) error {
	f, err := d.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// keep syncs a file: what a process wrote before it was killed is there for the
// next one to read, but a loss of power would still take it.
func keep(d disk, name string) error {
	f, err := d.OpenFile(name, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// remove removes a file, if there is one.
func remove(d disk, name string) error {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// read gives a file's content; nothing where there is no such file.
func read(d disk, name string) ([]byte, error) {
	data, err := d.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return data, nil
}

// exists reports whether there is a file or directory.
func exists(d disk, name string) (bool, error) {
	switch _, err := d.Stat(name); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, fmt.Errorf("look for %q: %w", name, err)
	}
}
