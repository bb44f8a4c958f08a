package kafkatest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout bounds a broker's own shutdown; then it is killed. The brokers of
// a cluster that are told to stop together wait for a controller that is gone.
const stopTimeout = 20 * time.Second

// logTail is how much of a broker's log a failed test shows, in bytes.
const logTail = 16 << 10

// jvm are the options of every Java process: a small heap and quick compilation
// instead of good code, since a broker lives for seconds.
var jvm = []string{
	"-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
	"-Djava.awt.headless=true",
	"-Dorg.slf4j.simpleLogger.showDateTime=true",
	"-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
	"-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
	// It prints every setting with its default, hundreds of lines a start.
	"-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
}

// java gives the command that runs a class out of Kafka's jars.
func java(jars string, class string, args ...string) *exec.Cmd {
	all := append(append([]string{}, jvm...), "-cp", filepath.Join(jars, "*"), class)
	cmd := exec.Command("java", append(all, args...)...)
	cmd.SysProcAttr = orphan()
	return cmd
}

// explain says what to install where there is no Java.
func explain(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("install a Java runtime, 17 or newer (Debian: apt-get install openjdk-17-jre-headless): %w", err)
	}
	return err
}

// process is one broker's Java process, once started.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess runs a broker on its properties; its output is appended to the
// file log.
func startProcess(jars, properties, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the broker's log: %w", err)
	}
	defer out.Close() // the child has its own
	cmd := java(jars, "kafka.Kafka", properties)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", explain(err))
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // its error is in cmd.ProcessState, and expected from a kill
	}()
	return p, nil
}

// stop asks the broker to shut down, where the system has a way to ask.
func (p *process) stop() {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.kill()
		return
	}
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

// kill ends the broker as a crash would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // its one error says that it has ended already
	<-p.done
}

// tail gives the end of a log file.
func tail(file string) string {
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if cut := len(content) - logTail; cut > 0 {
		content = content[cut:]
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	return string(content)
}
