//go:build e2e

package workers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
)

// order is an order that a gateway has accepted, and what its client has seen.
// All but item, id and ended are set once ended is closed.
type order struct {
	item    string // empty for a request that is no order
	id      string
	ended   chan struct{}
	replies []reply
	end     string // data of the end event
	err     error
}

// reply is one default event.
type reply struct{ data, id string }

// place gives where the reply stands on its topic, as partition-offset.
func (r reply) place() string {
	_, place, _ := strings.Cut(r.id, "-") // behind the topic's incarnation
	return place
}

// place posts an order, or what is none where item is empty, and follows its
// stream from then on. Without a customer the order has no key.
func place(ctx context.Context, site, customer, item string) (*order, error) {
	body := "this is no order"
	if item != "" {
		body = fmt.Sprintf(`{"item":%q}`, item)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, site+"/orders", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	if customer != "" {
		request.Header.Set("X-Customer", customer)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusAccepted {
		return nil, fmt.Errorf("POST /orders: %s: %s", response.Status, text)
	}
	var accepted struct{ ID, Stream string }
	if err := json.Unmarshal(text, &accepted); err != nil {
		return nil, fmt.Errorf("%w in %s", err, text)
	}
	o := &order{item: item, id: accepted.ID, ended: make(chan struct{})}
	go func() {
		defer close(o.ended)
		o.err = o.follow(ctx, accepted.Stream)
	}()
	return o, nil
}

// follow reads the stream until the gateway closes it.
func (o *order) follow(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the stream: %s", response.Status)
	}
	var event, data, id string
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "event":
			event = value
		case name == "data": // the workers' JSON has one line
			data = value
		case name == "id":
			id = value
		case lines.Text() == "":
			if err := o.see(event, data, id); err != nil {
				return err
			}
			event, data = "", ""
		}
	}
	return lines.Err()
}

// see takes one event.
func (o *order) see(event, data, id string) error {
	switch {
	case data == "":
	case o.end != "":
		return fmt.Errorf("after the end came %s %s", event, data)
	case event == "":
		o.replies = append(o.replies, reply{data, id})
	case event == "end":
		o.end = data
	case event != "status":
		return fmt.Errorf("event %s: %s", event, data)
	}
	return nil
}

// check says what is wrong with what the client saw. Progress may be told twice by
// a worker that was killed; again is how often it was told too much. The result
// comes once.
func (o *order) check(l language) (again int, err error) {
	if o.err != nil {
		return 0, o.err
	}
	code, progress := l.code, l.progress
	if o.item == "" {
		code, progress = l.refusal, 0
	}
	var end struct {
		Status string
		Code   int
	}
	if err := json.Unmarshal([]byte(o.end), &end); err != nil || end.Status != "replied" || end.Code != code {
		return 0, fmt.Errorf("the stream ended with %q, not replied and %d", o.end, code)
	}
	if len(o.replies) < 1+progress {
		return 0, fmt.Errorf("replies %v", o.replies)
	}
	last := len(o.replies) - 1
	for i, r := range o.replies {
		if err := o.checkReply(r.data, i == last); err != nil {
			return 0, fmt.Errorf("reply %d of %d: %w", i+1, len(o.replies), err)
		}
	}
	return last - progress, nil
}

// checkReply looks at one reply.
func (o *order) checkReply(data string, last bool) error {
	if o.item == "" {
		if !strings.Contains(data, "an order is JSON and names an item") {
			return fmt.Errorf("%s says nothing of what is wrong with the order", data)
		}
		return nil
	}
	want := map[string]string{"message": "One " + o.item + ", in the making"}
	if last {
		want = map[string]string{"order": o.item, "message": "One " + o.item + ", coming up"}
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(data), &got); err != nil || !maps.Equal(got, want) {
		return fmt.Errorf("%s is not %v", data, want)
	}
	return nil
}

// await waits for an order's end.
func (o *order) await(ctx context.Context, t testing.TB) {
	t.Helper()
	select {
	case <-o.ended:
	case <-ctx.Done():
		t.Fatalf("the stream of %q has not ended", o.item)
	}
}
