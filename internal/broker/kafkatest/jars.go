package kafkatest

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// version names the cache folder; pom.xml says the same.
const version = "4.1.0"

//go:embed pom.xml
var pom []byte

// jars gives the folder that holds Kafka's jars, and fetches them with Maven
// when they are not there yet: 93 jars, 54 MB. Packages are tested in processes
// of their own that may all come here at once, so the folder appears whole, by
// a rename, and whoever comes second throws its copy away.
func jars() (string, error) {
	folder := os.Getenv("OSMOSIS_KAFKA_JARS")
	if folder == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder for Kafka's jars, or name one in OSMOSIS_KAFKA_JARS: %w", err)
		}
		folder = filepath.Join(cache, "caddy-osmosis", "kafka-"+version)
	}
	if present(folder) {
		return folder, nil
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder for Kafka's jars: %w", err)
	}
	scratch, err := os.MkdirTemp(filepath.Dir(folder), "fetch-")
	if err != nil {
		return "", fmt.Errorf("make the cache folder for Kafka's jars: %w", err)
	}
	defer os.RemoveAll(scratch)
	if err := fetch(scratch); err != nil {
		return "", err
	}
	if err := os.Rename(filepath.Join(scratch, "jars"), folder); err != nil && !present(folder) {
		return "", fmt.Errorf("move Kafka's jars into the cache: %w", err)
	}
	return folder, nil
}

// present tells whether folder holds any jar. An empty one that the user made
// beforehand counts as absent, and the rename replaces it.
func present(folder string) bool {
	found, _ := filepath.Glob(filepath.Join(folder, "kafka_*.jar"))
	return len(found) > 0
}

// fetch lets Maven copy the jars into scratch/jars.
func fetch(scratch string) error {
	file := filepath.Join(scratch, "pom.xml")
	if err := os.WriteFile(file, pom, 0o644); err != nil {
		return fmt.Errorf("write the list of Kafka's jars: %w", err)
	}
	mvn := exec.Command("mvn", "--batch-mode", "--quiet", "--file", file,
		"dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(scratch, "jars"))
	out, err := mvn.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("fetch Kafka's jars: install Maven and a Java runtime, 17 or newer (Debian: apt-get install maven openjdk-17-jre-headless): %w", err)
	}
	if err != nil {
		return fmt.Errorf("fetch Kafka's jars with Maven: %w\n%s", err, out)
	}
	return nil
}
