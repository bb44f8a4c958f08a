package embedded

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/twmb/franz-go/pkg/kfake"
)

// crashDisk is a disk in memory that remembers everything that was done to it,
// and so knows what a crash at any moment leaves.
type crashDisk struct {
	mu      sync.Mutex
	base    image // before all that was done
	current image
	done    []change
	before  int // how much was done on the disks that this one was left by
}

// image is what is on a disk: the content of each file, and the files' names.
type image struct {
	files map[int][]byte
	names map[string]int
	dirs  map[string]bool
}

func (i image) clone() image {
	return image{maps.Clone(i.files), maps.Clone(i.names), maps.Clone(i.dirs)} // contents are never changed in place
}

type change struct {
	what     changeKind
	file     int
	name, to string
	at       int
	data     []byte
}

type changeKind string

const (
	creating   changeKind = "create"
	writing    changeKind = "write"
	truncating changeKind = "truncate"
	syncing    changeKind = "sync"
	renaming   changeKind = "rename"
	removing   changeKind = "remove"
	making     changeKind = "mkdir"
	syncingDir changeKind = "sync directory"
)

func (c change) ofNames() bool {
	return c.what == creating || c.what == renaming || c.what == removing || c.what == making
}

func newCrashDisk() *crashDisk {
	empty := image{make(map[int][]byte), make(map[string]int), map[string]bool{"/": true}}
	return &crashDisk{base: empty, current: empty.clone()}
}

// apply does a change to an image.
func (i image) apply(c change) {
	switch c.what {
	case creating:
		i.names[c.name] = c.file
		i.parents(c.name)
	case writing:
		old := i.files[c.file]
		data := make([]byte, max(len(old), c.at+len(c.data)))
		copy(data, old)
		copy(data[c.at:], c.data)
		i.files[c.file] = data
	case truncating:
		data := make([]byte, c.at)
		copy(data, i.files[c.file])
		i.files[c.file] = data
	case renaming:
		if i.names[c.name] == c.file {
			delete(i.names, c.name)
		}
		i.names[c.to] = c.file
		i.parents(c.to)
	case removing:
		delete(i.names, c.name)
		delete(i.dirs, c.name)
	case making:
		i.dirs[c.name] = true
		i.parents(c.name)
	}
}

func (i image) parents(name string) {
	for d := filepath.Dir(name); !i.dirs[d]; d = filepath.Dir(d) {
		i.dirs[d] = true
	}
}

// do does a change and remembers it.
func (d *crashDisk) do(c change) {
	d.current.apply(c)
	d.done = append(d.done, c)
}

// count is how much was done to it.
func (d *crashDisk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.before + len(d.done)
}

// killed is what a SIGKILL leaves after so many changes: all of them, and some
// bytes of the next one if that is a write.
func (d *crashDisk) killed(after, torn int) *crashDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := after - d.before
	done := slices.Clone(d.done[:n])
	if torn > 0 && n < len(d.done) && d.done[n].what == writing {
		c := d.done[n]
		c.data = c.data[:min(torn, len(c.data))]
		done = append(done, c)
	}
	left := &crashDisk{base: d.base, current: d.base.clone(), done: done, before: d.before}
	for _, c := range done {
		left.current.apply(c)
	}
	return left
}

// powerless is what a loss of power leaves after so many changes. What was
// synced is there; of what was written to a file since then there is a part, the
// last of it perhaps as zeros. Names reach the disk in their order, and with the
// next sync of any file, as on a file system with one journal (ext4, XFS); or,
// if loose, each by itself, with the next sync of its file or its directory
// (Btrfs).
func (d *crashDisk) powerless(after int, loose bool, rng *rand.Rand) *crashDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	done := d.done[:after-d.before]
	left := d.base.clone()
	journal := 0
	for n, c := range done {
		if c.what == syncing || c.what == syncingDir {
			journal = n
		}
	}
	lost := false
	for n, c := range done {
		if !c.ofNames() {
			continue
		}
		if loose {
			lost = !settled(c, done[n+1:]) && rng.IntN(2) == 0
		} else if n > journal {
			lost = lost || rng.IntN(4) == 0
		}
		if !lost {
			left.apply(c)
		}
	}
	maps.DeleteFunc(left.names, func(name string, _ int) bool { return !left.dirs[filepath.Dir(name)] }) // gone with its directory
	for _, file := range slices.Sorted(maps.Values(left.names)) {
		left.files[file] = d.base.files[file]
		var changes []change
		synced := 0
		for _, c := range done {
			if c.file != file || c.ofNames() || c.what == syncingDir {
				continue
			}
			changes = append(changes, c)
			if c.what == syncing {
				synced = len(changes)
			}
		}
		upTo := synced + rng.IntN(len(changes)-synced+1)
		for _, c := range changes[:upTo] {
			left.apply(c)
		}
		if upTo < len(changes) && changes[upTo].what == writing {
			c := changes[upTo]
			c.data = slices.Clone(c.data)
			clear(c.data[rng.IntN(len(c.data)+1):])
			c.data = c.data[:rng.IntN(len(c.data)+1)]
			left.apply(c)
		}
	}
	return &crashDisk{base: left, current: left.clone(), before: after}
}

// settled reports whether later changes have taken a change of names to disk.
func settled(c change, later []change) bool {
	name := c.name
	if c.what == renaming {
		name = c.to
	}
	under := name + "/"
	for _, l := range later {
		switch l.what {
		case syncingDir:
			if l.name == filepath.Dir(name) || strings.HasPrefix(l.name+"/", under) ||
				c.what == removing && l.name == filepath.Dir(filepath.Dir(name)) { // with its directory
				return true
			}
		case syncing:
			if l.file == c.file && c.what != removing && c.what != making || c.what == making && strings.HasPrefix(l.name, under) {
				return true
			}
		}
	}
	return false
}

// The rest makes it a disk.

func (d *crashDisk) OpenFile(name string, flag int, _ os.FileMode) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.current.names[name]
	switch {
	case !ok && flag&os.O_CREATE == 0, !d.current.dirs[filepath.Dir(name)]:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	case !ok:
		n = d.before + len(d.done) + 1
		d.do(change{what: creating, file: n, name: name})
	case flag&os.O_TRUNC != 0 && len(d.current.files[n]) > 0:
		d.do(change{what: truncating, file: n, name: name})
	}
	return &crashFile{disk: d, file: n, name: name, appends: flag&os.O_APPEND != 0}, nil
}

func (d *crashDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.current.names[from]
	if !ok {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	d.do(change{what: renaming, file: n, name: from, to: to})
	return nil
}

func (d *crashDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.current.names[name]
	if !ok && !d.current.dirs[name] {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	d.do(change{what: removing, file: n, name: name})
	return nil
}

func (d *crashDisk) RemoveAll(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, name := range slices.Concat(slices.Collect(maps.Keys(d.current.names)), slices.Collect(maps.Keys(d.current.dirs))) {
		if name == path || strings.HasPrefix(name, path+"/") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	for _, name := range slices.Backward(all) { // files before their directories
		d.do(change{what: removing, file: d.current.names[name], name: name})
	}
	return nil
}

func (d *crashDisk) MkdirAll(path string, _ os.FileMode) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var missing []string
	for ; !d.current.dirs[path]; path = filepath.Dir(path) {
		missing = append(missing, path)
	}
	for _, name := range slices.Backward(missing) {
		d.do(change{what: making, name: name})
	}
	return nil
}

func (d *crashDisk) ReadDir(name string) ([]os.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.current.dirs[name] {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	var entries []os.DirEntry
	for path, n := range d.current.names {
		if filepath.Dir(path) == name {
			entries = append(entries, fs.FileInfoToDirEntry(crashInfo{filepath.Base(path), int64(len(d.current.files[n])), false}))
		}
	}
	for path := range d.current.dirs {
		if path != "/" && filepath.Dir(path) == name {
			entries = append(entries, fs.FileInfoToDirEntry(crashInfo{filepath.Base(path), 0, true}))
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

func (d *crashDisk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.current.names[name]
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(d.current.files[n]), nil
}

func (d *crashDisk) Stat(name string) (os.FileInfo, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := d.current.names[name]; ok {
		return crashInfo{filepath.Base(name), int64(len(d.current.files[n])), false}, nil
	}
	if d.current.dirs[name] {
		return crashInfo{filepath.Base(name), 0, true}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

func (d *crashDisk) SyncDirectory(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.do(change{what: syncingDir, name: name})
	return nil
}

// crashFile is an open file of it.
type crashFile struct {
	disk    *crashDisk
	file    int
	name    string
	appends bool
	at      int
}

func (f *crashFile) Write(data []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.appends {
		f.at = len(f.disk.current.files[f.file])
	}
	f.disk.do(change{what: writing, file: f.file, name: f.name, at: f.at, data: slices.Clone(data)})
	f.at += len(data)
	return len(data), nil
}

func (f *crashFile) Read(data []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	content := f.disk.current.files[f.file]
	if f.at >= len(content) {
		return 0, io.EOF
	}
	n := copy(data, content[f.at:])
	f.at += n
	return n, nil
}

func (f *crashFile) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fs.ErrInvalid
	}
	f.at = int(offset)
	return offset, nil
}

func (f *crashFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.do(change{what: truncating, file: f.file, name: f.name, at: int(size)})
	return nil
}

func (f *crashFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.do(change{what: syncing, file: f.file, name: f.name})
	return nil
}

func (f *crashFile) Close() error { return nil }

// crashInfo describes a file or directory of it.
type crashInfo struct {
	name string
	size int64
	dir  bool
}

func (i crashInfo) Name() string       { return i.name }
func (i crashInfo) Size() int64        { return i.size }
func (i crashInfo) IsDir() bool        { return i.dir }
func (i crashInfo) ModTime() time.Time { return time.Time{} }
func (i crashInfo) Sys() any           { return nil }
func (i crashInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}

// kfakeDisk is kfake's own interface of a disk, which its tests have and nobody
// else: TestKfakesDiskIsThisOne says whether they are still the same.
type kfakeDisk interface {
	OpenFile(name string, flag int, perm os.FileMode) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	RemoveAll(path string) error
	MkdirAll(path string, perm os.FileMode) error
	ReadDir(name string) ([]os.DirEntry, error)
	ReadFile(name string) ([]byte, error)
	Stat(name string) (os.FileInfo, error)
}

// onDisk has kfake write to a disk.
//
//go:linkname onDisk github.com/twmb/franz-go/pkg/kfake.withFS
func onDisk(d kfakeDisk) kfake.Opt

func TestKfakesDiskIsThisOne(t *testing.T) {
	field, ok := reflect.TypeFor[kfake.Cluster]().FieldByName("fs")
	if !ok {
		t.Fatal("kfake has no such field any more")
	}
	same := func(theirs, ours reflect.Type) {
		t.Helper()
		if theirs.NumMethod() != ours.NumMethod() {
			t.Fatalf("kfake's disk has %d methods, want %d", theirs.NumMethod(), ours.NumMethod())
		}
		for i := range theirs.NumMethod() {
			a, b := theirs.Method(i), ours.Method(i)
			signature := func(m reflect.Method) string {
				return m.Name + strings.NewReplacer("kfake.", "", "embedded.", "").Replace(m.Type.String())
			}
			if signature(a) != signature(b) {
				t.Errorf("kfake's disk has %s, want %s", signature(a), signature(b))
			}
		}
	}
	same(field.Type, reflect.TypeFor[kfakeDisk]())
	open, _ := field.Type.MethodByName("OpenFile")
	same(open.Type.Out(0), reflect.TypeFor[file]())
}
