package broker

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair gives both ends of a TCP connection, the near one watched.
func pair(t *testing.T, security func(near, far net.Conn) (net.Conn, net.Conn)) (*idler, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if security != nil {
		near, far = security(near, far)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return &idler{Conn: near}, far
}

// exchanged sends a question and its answer over a connection.
func exchanged(t *testing.T, near, far net.Conn) {
	t.Helper()
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		failed := make(chan error, 1)
		go func() {
			_, err := io.WriteString(way[0], "hello")
			failed <- err
		}()
		if _, err := io.ReadFull(way[1], make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
}

// ended closes the far end and waits until that has arrived.
func ended(t *testing.T, near *idler, far net.Conn) {
	t.Helper()
	far.Close()
	for late := time.Now().Add(10 * time.Second); !near.dead(); {
		if time.Now().After(late) {
			t.Fatal("the end did not arrive")
		}
	}
}

func TestIdleConnection(t *testing.T) {
	server := serverCertificate(t)
	for name, security := range map[string]func(near, far net.Conn) (net.Conn, net.Conn){
		"plain": nil,
		"tls": func(near, far net.Conn) (net.Conn, net.Conn) {
			return tls.Client(near, &tls.Config{InsecureSkipVerify: true}), //nolint:gosec // a test's own
				tls.Server(far, &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS12})
		},
	} {
		t.Run(name+" that lives is written to", func(t *testing.T) {
			near, far := pair(t, security)
			exchanged(t, near, far)
			near.used = time.Now().Add(-time.Minute)
			exchanged(t, near, far)
		})
		t.Run(name+" that was ended is not written to", func(t *testing.T) {
			near, far := pair(t, security)
			exchanged(t, near, far)
			ended(t, near, far)
			near.used = time.Now().Add(-time.Minute)
			if n, err := near.Write([]byte("lost")); n != 0 || !errors.Is(err, errIdleDead) {
				t.Errorf("wrote %d bytes: %v", n, err)
			}
		})
		t.Run(name+" keeps what came unasked, and its deadline", func(t *testing.T) {
			near, far := pair(t, security)
			exchanged(t, near, far)
			past := time.Now().Add(-time.Hour)
			if err := near.SetReadDeadline(past); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(far, "early"); err != nil {
				t.Fatal(err)
			}
			for len(near.early) < 5 {
				if near.dead() {
					t.Fatal("a live connection counts as dead")
				}
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(near, got); err != nil || string(got) != "early" {
				t.Errorf("read %q: %v", got, err)
			}
			var timeout net.Error
			if _, err := near.Read(got); !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("past the deadline: %v", err)
			}
		})
	}
}
