package embedded

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"path/filepath"
)

// kfake's logs of groups and of producer ids.
const (
	groupsLog    = "groups.log"
	producersLog = "pids.log"
)

// entries gives what is whole in a log of groups or producers, and how many
// bytes that is. An entry is its length, a checksum, a version and JSON.
func entries(log []byte) (texts [][]byte, whole int) {
	const header, version = 8, 2
	for len(log)-whole >= header+version {
		at := log[whole:]
		length := int64(binary.LittleEndian.Uint32(at))
		if length < version || length > int64(len(at)-header) {
			break
		}
		content := at[header : header+length]
		if crc32.Checksum(content, castagnoli) != binary.LittleEndian.Uint32(at[4:]) {
			break
		}
		texts = append(texts, content[version:])
		whole += header + int(length)
	}
	return texts, whole
}

// entry frames one for such a log.
func entry(text []byte) []byte {
	content := append(binary.LittleEndian.AppendUint16(nil, formatVersion), text...)
	e := binary.LittleEndian.AppendUint32(nil, uint32(len(content))) //nolint:gosec // short
	e = binary.LittleEndian.AppendUint32(e, crc32.Checksum(content, castagnoli))
	return append(e, content...)
}

// trimLog removes what is not whole at the end of a log. kfake reads up to
// there, but appends behind it.
func trimLog(d disk, name string) error {
	log, err := read(d, name)
	if err != nil {
		return err
	}
	if _, whole := entries(log); whole < len(log) {
		return shorten(d, name, int64(whole))
	}
	return keep(d, name)
}

// forgetCommits takes back the commits of topics that are gone, as kfake does
// at the end of a deletion.
func (r *recovery) forgetCommits(topics topicsFile) error {
	known := make(map[string]bool)
	for _, t := range topics.Topics {
		known[t.Name] = true
	}
	name := filepath.Join(r.directory, groupsLog)
	log, err := read(r.disk, name)
	if err != nil {
		return err
	}
	type commit struct {
		Type      string `json:"type"`
		Group     string `json:"g"`
		Topic     string `json:"t,omitempty"`
		Partition int32  `json:"p,omitempty"`
	}
	var taken []byte
	texts, _ := entries(log)
	for _, text := range texts {
		var c commit
		if err := json.Unmarshal(text, &c); err != nil || c.Type != "commit" || known[c.Topic] {
			continue
		}
		c.Type = "delete"
		back, err := json.Marshal(c)
		if err != nil {
			return err
		}
		taken = append(taken, entry(back)...)
	}
	if len(taken) == 0 {
		return nil
	}
	if err := appendTo(r.disk, name, taken); err != nil {
		return fmt.Errorf("take back the commits of a deleted topic: %w", err)
	}
	return nil
}
