package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// space is what the data directory takes of the disk.
type space struct {
	size int64 // of all files, in bytes
	// partitions holds the segments of each, by their first offset.
	partitions map[tp][]segment
}

// tp is a partition of a topic.
type tp struct {
	topic     string
	partition int32
}

// segment is a piece of a partition's log: the file with its records and the
// one that finds them.
type segment struct{ first, size int64 }

// measure sums up the data directory. Files that the broker deletes meanwhile
// are passed over.
func measure(d disk, directory string) (space, error) {
	s := space{partitions: make(map[tp][]segment)}
	if err := s.walk(d, directory); err != nil {
		return space{}, fmt.Errorf("measure the data directory: %w", err)
	}
	for at, files := range s.partitions {
		slices.SortFunc(files, func(a, b segment) int { return cmp.Compare(a.first, b.first) })
		var segments []segment
		for _, f := range files {
			if n := len(segments); n > 0 && segments[n-1].first == f.first {
				segments[n-1].size += f.size
				continue
			}
			segments = append(segments, f)
		}
		s.partitions[at] = segments
	}
	return s, nil
}

// walk adds up a directory.
func (s *space) walk(d disk, directory string) error {
	entries, err := d.ReadDir(directory)
	if err != nil {
		return ignoreMissing(err)
	}
	for _, entry := range entries {
		path := filepath.Join(directory, entry.Name())
		if entry.IsDir() {
			if err := s.walk(d, path); err != nil {
				return err
			}
			continue
		}
		info, err := entry.Info()
		if err != nil {
			if err := ignoreMissing(err); err != nil {
				return err
			}
			continue
		}
		s.size += info.Size()
		if at, first, ok := segmentOf(path); ok {
			s.partitions[at] = append(s.partitions[at], segment{first, info.Size()})
		}
	}
	return nil
}

// segmentOf tells what a file is a part of, by the names that kfake gives:
// partitions/<topic>-<partition>/<first offset>.dat, and .idx beside it.
func segmentOf(path string) (at tp, first int64, ok bool) {
	directory, file := filepath.Split(path)
	name := filepath.Base(directory)
	dash := strings.LastIndexByte(name, '-')
	suffix := filepath.Ext(file)
	if dash < 0 || suffix != ".dat" && suffix != ".idx" {
		return tp{}, 0, false
	}
	topic, err1 := url.PathUnescape(name[:dash])
	partition, err2 := strconv.ParseInt(name[dash+1:], 10, 32)
	first, err3 := strconv.ParseInt(strings.TrimSuffix(file, suffix), 10, 64)
	return tp{topic, int32(partition)}, first, errors.Join(err1, err2, err3) == nil
}

// ignoreMissing passes over files that the broker deletes while they are counted.
func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
