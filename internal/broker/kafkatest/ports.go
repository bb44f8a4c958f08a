package kafkatest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// Ports are taken from below the ranges from which systems serve outgoing
// connections (Linux: 32768 up, others: 49152 up). A port out of those could
// be lost to any client while a broker is down between Stop and Restart.
const (
	firstPort = 20_000
	ports     = 12_000
)

// begun counts the ports looked at: none is given twice by one process, since
// the broker that had it may be down just now.
var begun atomic.Uint32

func init() { begun.Store(rand.Uint32N(1 << 31)) }

// freePorts finds n ports of the loopback address that nobody listens on.
func freePorts(n int) ([]int, error) {
	var found []int
	for range 100 * n {
		port := firstPort + int(begun.Add(1)%ports)
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		l.Close()
		if found = append(found, port); len(found) == n {
			return found, nil
		}
	}
	return nil, fmt.Errorf("find %d free ports from %d to %d: %w", n, firstPort, firstPort+ports, errors.New("too many are in use"))
}

// address is where a broker listens on this port.
func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
