package broker

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

func TestWires(t *testing.T) {
	bubble(t, "cut ends reads and refuses dials", func(t *testing.T) {
		var far []net.Conn
		w := NewWires(func(context.Context, string, string) (net.Conn, error) {
			near, other := net.Pipe()
			far = append(far, other)
			return near, nil
		})
		conn, err := w.Dial(t.Context(), "tcp", "kafka:9092")
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait()
		w.Cut()
		if err := <-read; err == nil {
			t.Fatal("the read went on")
		}
		if _, err := w.Dial(t.Context(), "tcp", "kafka:9092"); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		for _, conn := range far {
			conn.Close()
		}
	})

	bubble(t, "cut ends a dial under way", func(t *testing.T) {
		w := NewWires(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		dialed := make(chan error, 1)
		go func() {
			_, err := w.Dial(context.Background(), "tcp", "kafka:9092")
			dialed <- err
		}()
		synctest.Wait()
		w.Cut()
		if err := <-dialed; err == nil {
			t.Fatal("no error")
		}
	})

	t.Run("a closed connection is forgotten", func(t *testing.T) {
		w := NewWires(func(context.Context, string, string) (net.Conn, error) {
			near, _ := net.Pipe()
			return near, nil
		})
		conn, err := w.Dial(t.Context(), "tcp", "kafka:9092")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if len(w.conns) != 0 {
			t.Fatal("a closed connection is kept")
		}
	})
}
