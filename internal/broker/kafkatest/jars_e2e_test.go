//go:build e2e

package kafkatest

import "testing"

// TestJars fetches Kafka's jars, so that the tests that start it need not wait
// for Maven.
func TestJars(t *testing.T) {
	folder, err := jars()
	if err != nil {
		t.Fatal(err)
	}
	if !present(folder) {
		t.Errorf("no jars of Kafka in %s", folder)
	}
}
