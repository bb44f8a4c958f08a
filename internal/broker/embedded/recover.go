package embedded

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// recovery sets right what a crash leaves in the files, before kfake reads
// them. kfake reads over a torn end, but it does not always remove it, and it
// forgets what it only writes at a clean stop. Found by crashing it at every
// write, each with what it cost before:
//
//   - A torn entry at the end of groups.log or pids.log stays there, and what is
//     appended after it is not read at the next start: acknowledged commits were
//     lost with the second crash.
//   - A batch whose entry in the index is missing or torn shifts all entries
//     after it: transactions were taken for other ones, and acknowledged records
//     hidden from readers of committed records.
//   - The sequences of idempotent producers are written at a clean stop only. A
//     batch that was in the log and had no answer yet was appended a second time
//     when it was sent again. Those of an older clean stop are worse than none.
//   - A transaction that was open is aborted in memory only. After the next crash
//     its records were taken for committed, if its producer had gone on.
//     The snapshot of a clean stop while it was open held back readers of
//     committed records for good.
//   - What a process had written and not yet synced is there for the next one,
//     which acknowledges it when it is sent again, and goes with a loss of power.
//   - A topic's deletion that broke off left the topic, with fewer records and
//     under the same id; directories that no topic owns any more were taken over
//     by the next topic of that name, which then read the old records.
//
// Each step can break off anywhere and be done again. After a clean stop there
// is nothing to do and nothing is read.
type recovery struct {
	disk      disk
	directory string // kfake's
	logger    *zap.Logger

	producers map[int64]*producerState
}

// markerName is the file that says that the last stop was a clean one.
const markerName = "stopped"

// sessionFile is where kfake writes what its clients were at when it stopped.
const sessionFile = "session_state.json"

// formatVersion is the version of kfake's files that this package knows.
const formatVersion = 1

// topicsFile is kfake's list of topics.
type topicsFile struct {
	Version int           `json:"version"`
	Topics  []topicOnDisk `json:"topics"`
}

type topicOnDisk struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"` // base64
	Partitions int               `json:"partitions"`
	Replicas   int               `json:"replicas"`
	Configs    map[string]string `json:"configs,omitempty"`
}

// needed reports whether there is anything to do: the last stop was not a clean
// one, or transactions were open. kfake would have those go on, but aborts one
// that has become too old without a new epoch: its producer went on, and
// committed the other half.
func (r *recovery) needed(marker string) (bool, error) {
	clean, err := exists(r.disk, marker)
	if err != nil || !clean {
		return true, err
	}
	data, err := read(r.disk, filepath.Join(r.directory, sessionFile))
	if err != nil || data == nil {
		return false, err
	}
	var session struct {
		Transactions []json.RawMessage `json:"inProgressTxns"`
	}
	if json.Unmarshal(data, &session) != nil {
		return true, nil //nolint:nilerr // kfake would pass over it
	}
	return len(session.Transactions) > 0, nil
}

// unmark takes back that the last stop was a clean one.
func unmark(d disk, marker string) error {
	return errors.Join(remove(d, marker), d.SyncDirectory(filepath.Dir(marker)))
}

// run does all of it, if it is needed.
func (r *recovery) run(marker string) error {
	needed, err := r.needed(marker)
	if err != nil || !needed {
		return err
	}
	if err := unmark(r.disk, marker); err != nil {
		return err
	}
	topics, fresh, err := r.topics()
	if err != nil || fresh {
		return err
	}
	if err := r.dropSession(); err != nil {
		return err
	}
	for _, name := range []string{groupsLog, producersLog} {
		if err := trimLog(r.disk, filepath.Join(r.directory, name)); err != nil {
			return fmt.Errorf("repair %s: %w", name, err)
		}
	}
	if topics, err = r.finishDeletions(topics); err != nil {
		return err
	}
	if err := r.removeOrphans(topics); err != nil {
		return err
	}
	if err := r.readProducers(); err != nil {
		return err
	}
	var logs []*partitionLog
	for _, t := range topics.Topics {
		for p := range t.Partitions {
			l := &partitionLog{tp: tp{t.Name, int32(p)}, directory: partitionDirectory(r.directory, t.Name, p)} //nolint:gosec // the number of partitions is an int32
			if err := r.partition(l); err != nil {
				return fmt.Errorf("repair topic %q, partition %d: %w", t.Name, p, err)
			}
			logs = append(logs, l)
		}
	}
	if err := r.abortOpen(logs); err != nil {
		return err
	}
	return r.writeProducers(logs)
}

// topics reads the list of topics; fresh: nothing was ever kept here.
func (r *recovery) topics() (topics topicsFile, fresh bool, err error) {
	data, err := read(r.disk, filepath.Join(r.directory, "topics.json"))
	if err != nil {
		return topics, false, fmt.Errorf("read the list of topics: %w", err)
	}
	if data == nil {
		// The very first start may have broken off before this file was there.
		entries, err := list(r.disk, filepath.Join(r.directory, "partitions"))
		if err == nil && len(entries) > 0 {
			err = fmt.Errorf("%q holds partitions, and topics.json, which says whose they are, is missing: put it back, or move the directory away to start with none", r.directory)
		}
		return topics, true, err
	}
	if err := json.Unmarshal(data, &topics); err != nil {
		return topics, false, fmt.Errorf("read topics.json: %w", err)
	}
	if topics.Version != formatVersion {
		return topics, false, fmt.Errorf("topics.json has version %d, and this broker knows %d: start it with the version that wrote it", topics.Version, formatVersion)
	}
	// Without this file kfake takes the directory for a new one, and writes
	// an empty list over this one.
	meta := filepath.Join(r.directory, "meta.json")
	if there, err := exists(r.disk, meta); err != nil || there {
		return topics, false, err
	}
	return topics, false, replace(r.disk, meta, fmt.Appendf(nil, `{"version":%d,"cluster_id":%q}`, formatVersion, clusterID))
}

// dropSession removes what only a clean stop may leave to the next start.
func (r *recovery) dropSession() error {
	for _, name := range []string{sessionFile, sequencesFile} {
		if err := remove(r.disk, filepath.Join(r.directory, name)); err != nil {
			return err
		}
	}
	return r.disk.SyncDirectory(r.directory)
}

// removeOrphans removes directories of partitions that no topic has. A topic is
// on disk before its first record is acknowledged, so they are what is left of
// a topic that was deleted.
func (r *recovery) removeOrphans(topics topicsFile) error {
	owned := make(map[string]bool)
	for _, t := range topics.Topics {
		for p := range t.Partitions {
			owned[filepath.Base(partitionDirectory(r.directory, t.Name, p))] = true
		}
	}
	root := filepath.Join(r.directory, "partitions")
	entries, err := list(r.disk, root)
	if err != nil {
		return err
	}
	removed := false
	for _, name := range entries {
		if owned[name] {
			continue
		}
		r.logger.Warn("embedded broker removes the records of a deleted topic", zap.String("directory", filepath.Join(root, name)))
		if err := r.disk.RemoveAll(filepath.Join(root, name)); err != nil {
			return err
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return r.disk.SyncDirectory(root)
}

// deletionsName is the file that says which topics are being deleted, by their
// ids. kfake removes the records first and then the topic.
const deletionsName = "deleting"

// noteDeletions writes down which topics are about to be deleted.
func noteDeletions(d disk, directory string, ids [][16]byte) error {
	var text strings.Builder
	for _, id := range ids {
		text.WriteString(base64.StdEncoding.EncodeToString(id[:]) + "\n")
	}
	return replace(d, filepath.Join(directory, deletionsName), []byte(text.String()))
}

// finishDeletions deletes what was being deleted.
func (r *recovery) finishDeletions(topics topicsFile) (topicsFile, error) {
	note := filepath.Join(filepath.Dir(r.directory), deletionsName)
	data, err := read(r.disk, note)
	if err != nil || data == nil {
		return topics, err
	}
	begun := strings.Fields(string(data))
	before := len(topics.Topics)
	topics.Topics = slices.DeleteFunc(topics.Topics, func(t topicOnDisk) bool { return slices.Contains(begun, t.ID) })
	if len(topics.Topics) < before {
		text, err := json.Marshal(topics)
		if err != nil {
			return topics, err
		}
		if err := replace(r.disk, filepath.Join(r.directory, "topics.json"), text); err != nil {
			return topics, fmt.Errorf("finish the deletion of a topic: %w", err)
		}
	}
	if err := r.forgetCommits(topics); err != nil {
		return topics, err
	}
	if err := remove(r.disk, note); err != nil {
		return topics, err
	}
	return topics, r.disk.SyncDirectory(filepath.Dir(note))
}

// list gives the names in a directory; none where there is no directory.
func list(d disk, directory string) ([]string, error) {
	there, err := exists(d, directory)
	if err != nil || !there {
		return nil, err
	}
	entries, err := d.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// partitionDirectory is where kfake keeps a partition.
func partitionDirectory(directory, topic string, partition int) string {
	return filepath.Join(directory, "partitions", url.PathEscape(topic)+"-"+strconv.Itoa(partition))
}

// appendTo appends to a file.
func appendTo(d disk, name string, data []byte) error {
	f, err := d.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}
