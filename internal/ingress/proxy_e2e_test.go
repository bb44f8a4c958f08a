//go:build e2e

package ingress

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// cut is where a proxy cuts a connection that carries a produce request.
type cut int

const (
	uncut     cut = iota
	afterHalf     // half of the request went on to the broker
	afterAll      // all of it did, and nobody waited for the answer
	answered      // the broker has answered, and nobody heard it
	cuts
)

// proxy stands between the client and the brokers, as TCP proxies do, and cuts
// connections at produce requests.
type proxy struct {
	decide  func() cut
	ctx     context.Context
	running sync.WaitGroup

	mu   sync.Mutex
	made [cuts]int
}

// dial connects to a broker through the proxy.
func (p *proxy) dial(ctx context.Context, network, address string) (net.Conn, error) {
	broker, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	near, err := new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	p.running.Go(func() {
		defer far.Close()
		defer broker.Close()
		defer context.AfterFunc(p.ctx, func() { far.Close(); broker.Close() })()
		p.carry(far, broker)
	})
	return near, nil
}

// carry takes requests to the broker and answers back, one after the other as
// the client sends them, until one side ends or the proxy does it.
func (p *proxy) carry(client, broker net.Conn) {
	for {
		request, err := frame(client)
		if err != nil {
			return
		}
		end := uncut
		if binary.BigEndian.Uint16(request[4:]) == 0 { // the API key of Produce
			end = p.decide()
			p.mu.Lock()
			p.made[end]++
			p.mu.Unlock()
		}
		if end == afterHalf {
			_, _ = broker.Write(request[:len(request)/2])
			return
		}
		if _, err := broker.Write(request); err != nil || end == afterAll {
			return
		}
		answer, err := frame(broker)
		if err != nil || end == answered {
			return
		}
		if _, err := client.Write(answer); err != nil {
			return
		}
	}
}

// frame reads one request or answer, with its length.
func frame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	whole := make([]byte, len(size)+int(binary.BigEndian.Uint32(size[:])))
	copy(whole, size[:])
	_, err := io.ReadFull(r, whole[len(size):])
	return whole, err
}
