package broker

import (
	"context"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat tells the coordinator of a group that a member is alive. The answer
// nil, or kafka.RebalanceInProgress, means that it still is a member.
//
// kafka-go's own Client.Heartbeat does not do: it sends to whichever broker is at
// hand, which need not be the coordinator, and it reads the answer's error from
// where the throttle time stands, so that every answer looks good.
func (c *Client) Heartbeat(ctx context.Context, group string, generation int32, member string) error {
	r := kmsg.NewPtrHeartbeatRequest() // version 0, as kafka-go's groups speak it; the later ones add nothing that is needed
	r.Group, r.Generation, r.MemberID = group, generation, member
	answer, err := c.askRouted(ctx, anyBroker, r, func(e *exchange) protocol.Message { return coordinated{e, group} })
	if err != nil {
		return err
	}
	if err := failure(answer.(*kmsg.HeartbeatResponse).ErrorCode); err != nil {
		return fmt.Errorf("heartbeat in group %q: %w", group, err)
	}
	return nil
}

// coordinated is an exchange with the coordinator of a group, which the Transport
// looks up because it is a protocol.GroupMessage.
type coordinated struct {
	exchange *exchange // not embedded: its method Broker would come first
	group    string
}

func (m coordinated) Group() string                             { return m.group }
func (m coordinated) ApiKey() protocol.ApiKey                   { return m.exchange.ApiKey() }
func (m coordinated) Required(v map[protocol.ApiKey]int16) bool { return m.exchange.Required(v) }

// RawExchange implements protocol.RawExchanger.
func (m coordinated) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	return m.exchange.RawExchange(rw)
}

// Interface guards.
var (
	_ protocol.GroupMessage = coordinated{}
	_ protocol.RawExchanger = coordinated{}
)
