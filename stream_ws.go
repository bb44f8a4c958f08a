package osmosis

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// cloudEventsProtocol is the subprotocol of the CloudEvents WebSocket binding
// for its JSON format. The frames are the same without it.
const cloudEventsProtocol = "cloudevents.json"

// maxFrame is the largest frame taken from a client, which has nothing to send
// but control frames.
const maxFrame = 4096

// serveWebSocket gives the stream as CloudEvents, one text frame each. The
// check of the origin stands before the upgrade, since browsers let any page
// open a WebSocket to any site and send its cookies along.
func (v *visit) serveWebSocket(w http.ResponseWriter, r *http.Request) error {
	if !v.origins.admits(r, v.claims.Bind != "") {
		return writeProblem(w, r, problem{Status: http.StatusForbidden, Detail: "Pages of this origin may not read the stream. List it by name in the route's `cors`."})
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{cloudEventsProtocol},
		InsecureSkipVerify: true, // checked above, and by the routes' own list
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		v.logger.Debug("websocket not opened", zap.String("stream", v.claims.ID), zap.Error(err))
		return nil // answered by Accept
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxFrame)
	if v.refused != nil {
		_ = conn.Close(websocket.StatusTryAgainLater, "too many open streams")
		return nil
	}
	// The request's context says nothing about a connection that was taken over;
	// that of CloseRead ends with the connection, and the connection with it, so
	// that the end of the process, before which there is a word to say, comes on top.
	ctx, leave := whileServing(conn.CloseRead(context.WithoutCancel(r.Context())))
	defer leave()
	sub, gap := v.follow()
	defer sub.Close()
	out := socket{conn: conn, visit: v}
	if gap != nil && out.event(*gap) != nil {
		return nil
	}
	err = pump(ctx, sub, v.settings.heartbeat, out.event, out.ping)
	switch {
	case errors.Is(err, io.EOF):
		_ = conn.Close(websocket.StatusNormalClosure, "end of stream")
	case errors.Is(err, errExiting), errors.Is(err, hub.ErrClosed):
		_ = conn.Close(websocket.StatusServiceRestart, "the gateway is going down, come back")
	}
	return nil
}

// socket sends events over a WebSocket.
type socket struct {
	conn  *websocket.Conn
	visit *visit
}

// event sends one step of the stream. It is io.EOF after the end.
func (s socket) event(e hub.Event) error {
	switch e.Kind {
	case hub.KindReply, hub.KindStatus:
		return s.write(e.Entry.Encoded(hub.FormatCloudEvent, s.visit.encodeCloudEvent))
	case hub.KindGap:
		return s.write(s.visit.cloudEvent(record.GapEvent(gapID(e.Gap, s.visit.claims.ID), e.Gap), nil))
	case hub.KindEnd:
		if err := s.write(s.visit.cloudEvent(record.EndEvent(e.Cursor.String(), e.End), e.Entry)); err != nil {
			return err
		}
		return io.EOF
	}
	return nil
}

// write sends a frame, and gives up a client that does not read it in time.
func (s socket) write(frame []byte) error {
	return s.within(func(ctx context.Context) error { return s.conn.Write(ctx, websocket.MessageText, frame) })
}

// ping finds out whether the client is still there. Events wait meanwhile,
// which is one round trip where it is.
func (s socket) ping() error { return s.within(s.conn.Ping) }

func (s socket) within(do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.visit.settings.writeTimeout)
	defer cancel()
	return do(ctx)
}

// encodeCloudEvent encodes a record as a CloudEvent. All who read it have the
// same stream and therefore the same topic, so one encoding is good for all.
func (v *visit) encodeCloudEvent(e *hub.Entry) []byte {
	id := e.Cursor.String()
	if e.Reply.State != "" {
		return v.cloudEvent(record.StatusEvent(id, e.Reply.Progress()), e)
	}
	return v.cloudEvent(record.ReplyEvent(id, e.Reply), e)
}

// cloudEvent encodes an event of this stream, with the time of its record where it has one.
func (v *visit) cloudEvent(e record.Event, of *hub.Entry) []byte {
	e.Topic, e.StreamID = v.claims.Topic, v.claims.ID
	if of != nil {
		e.Time = of.Time
	} else {
		e.Time = time.Now()
	}
	return e.AppendJSON(nil)
}

// gapID makes the id of a gap, which is no record and has no cursor.
func gapID(g record.Gap, stream string) string {
	at := g.To
	if at == "" {
		at = g.From
	}
	if at == "" {
		at = stream
	}
	return "gap-" + g.Reason + "-" + at
}
