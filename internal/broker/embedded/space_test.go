package embedded

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fill opens a broker with room for 8 MiB and gives it 10 MB: 100 records, spread
// over the partitions, with the times that at gives them.
func fill(t *testing.T, partitions int32, at func(i int) time.Time) (directory string, admin *kadm.Client, tidy func()) {
	t.Helper()
	directory = t.TempDir()
	b := open(t, Config{Directory: directory, MaxBytes: 8 << 20})
	client, admin := connect(t, b)
	t.Cleanup(func() {
		client.Close()
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := admin.CreateTopic(t.Context(), partitions, 1, nil, "orders-of-2020.eu"); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		produce(t, client, &kgo.Record{Topic: "orders-of-2020.eu", Partition: int32(i) % partitions, Timestamp: at(i), Value: make([]byte, 100_000)})
	}
	return directory, admin, func() {
		t.Helper()
		if err := b.janitor.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// left gives how many records each partition holds.
func left(t *testing.T, admin *kadm.Client) []int64 {
	t.Helper()
	starts, err := admin.ListStartOffsets(t.Context(), "orders-of-2020.eu")
	if err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(t.Context(), "orders-of-2020.eu")
	if err != nil {
		t.Fatal(err)
	}
	counts := make([]int64, len(ends["orders-of-2020.eu"]))
	for p := range counts {
		start, _ := starts.Lookup("orders-of-2020.eu", int32(p))
		end, _ := ends.Lookup("orders-of-2020.eu", int32(p))
		counts[p] = end.Offset - start.Offset
	}
	return counts
}

// As many records go as needed, and hardly more, whatever the times of the
// files and of single records are.
func TestTheBoundTakesNoMoreThanItNeeds(t *testing.T) {
	now := time.Now()
	minutes := func(i int) time.Time { return now.Add(time.Duration(i-100) * time.Minute) }
	for name, at := range map[string]func(int) time.Time{
		"a minute apart":           minutes,
		"all of one time":          func(int) time.Time { return now },
		"all of the future":        func(i int) time.Time { return minutes(i).Add(1000 * time.Hour) },
		"written in nanoseconds":   func(i int) time.Time { return time.UnixMilli(minutes(i).UnixNano()) },
		"one of 1970 among others": func(i int) time.Time { return map[bool]time.Time{true: time.UnixMilli(1), false: minutes(i)}[i == 50] },
		"one of the future first": func(i int) time.Time {
			return map[bool]time.Time{true: now.Add(1000 * time.Hour), false: minutes(i)}[i == 0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			directory, admin, tidy := fill(t, 1, at)
			tidy()
			held, err := measure(osDisk{}, directory)
			if err != nil || held.size > 8<<20 {
				t.Errorf("%d bytes are left, %v", held.size, err)
			}
			if n := left(t, admin)[0]; n < 70 || n > 84 {
				t.Errorf("%d records are left, and 84 have room", n)
			}
		})
	}
}

// A copy of a directory has files of another time than the records in them.
func TestTheTimesOfTheFilesDoNotMatter(t *testing.T) {
	for _, shift := range []time.Duration{0, -1000 * time.Hour} {
		now := time.Now()
		directory, admin, tidy := fill(t, 1, func(i int) time.Time { return now.Add(time.Duration(i-100) * time.Minute) })
		err := filepath.WalkDir(directory, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			return os.Chtimes(path, now.Add(shift), now.Add(shift))
		})
		if err != nil {
			t.Fatal(err)
		}
		tidy()
		if n := left(t, admin)[0]; n < 70 {
			t.Errorf("%d records are left with files of %v, and 84 have room", n, shift)
		}
	}
}

// The oldest go first, whichever partition they are in.
func TestTheBoundTakesTheOldestOfAllPartitions(t *testing.T) {
	now := time.Now()
	_, admin, tidy := fill(t, 2, func(i int) time.Time {
		at := now.Add(time.Duration(i-100) * time.Minute)
		if i%2 == 1 {
			at = at.Add(-24 * time.Hour)
		}
		return at
	})
	tidy()
	if n := left(t, admin); n[0] != 50 || n[1] < 20 || n[1] > 40 {
		t.Errorf("%v records are left of 50 each, want those to go that are a day older", n)
	}
}

// A record goes only with its segment. Where no segment can go, nothing does:
// there are more partitions than the bound has room for.
func TestNothingIsDeletedThatFreesNoSpace(t *testing.T) {
	directory, admin, tidy := fill(t, 20, func(int) time.Time { return time.Now() })
	tidy()
	for p, n := range left(t, admin) {
		if n != 5 {
			t.Errorf("partition %d holds %d records, want all 5", p, n)
		}
	}
	held, err := measure(osDisk{}, directory)
	if err != nil || len(held.partitions) != 20 || held.partitions[tp{"orders-of-2020.eu", 19}][0].size < 500_000 {
		t.Errorf("%v, %v", held, err)
	}
}
