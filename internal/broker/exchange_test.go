package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answered runs one exchange against a broker that answers with these bytes.
func answered(r kmsg.Request, response []byte) (kmsg.Response, error) {
	rw := struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(response), io.Discard}
	m, err := (&exchange{request: r, broker: anyBroker}).RawExchange(rw)
	if err != nil {
		return nil, err
	}
	return m.(*exchange).answer, nil
}

// framed puts the length and the correlation id in front of a response.
func framed(correlation uint32, body []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(4+len(body)))
	out = binary.BigEndian.AppendUint32(out, correlation)
	return append(out, body...)
}

// asked is a request of each kind that the client sends, in its newest version.
func asked() []kmsg.Request {
	with := func(r kmsg.Request, version int16) kmsg.Request {
		r.SetVersion(version)
		return r
	}
	return []kmsg.Request{
		with(kmsg.NewPtrApiVersionsRequest(), 0), with(kmsg.NewPtrMetadataRequest(), 12), with(kmsg.NewPtrMetadataRequest(), 4),
		with(kmsg.NewPtrFetchRequest(), 13), with(kmsg.NewPtrFetchRequest(), 4), with(kmsg.NewPtrListOffsetsRequest(), 6),
		with(kmsg.NewPtrProduceRequest(), 13), with(kmsg.NewPtrProduceRequest(), 3),
	}
}

func TestRawExchange(t *testing.T) {
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.SetVersion(12)
	name := "orders"
	sent := metadata.ResponseKind().(*kmsg.MetadataResponse)
	sent.Topics = []kmsg.MetadataResponseTopic{{Topic: &name, TopicID: [16]byte{7}}}
	body := sent.AppendTo(nil)
	const noTags = 0

	t.Run("reads an answer, with and without tags in its header", func(t *testing.T) {
		for _, tags := range [][]byte{{noTags}, {1, 9, 2, 'h', 'i'}, {2, 1, 0, 200, 1, 1, 'x'}} {
			got, err := answered(metadata, framed(1, append(tags, body...)))
			if err != nil {
				t.Fatal(err)
			}
			if topics := got.(*kmsg.MetadataResponse).Topics; len(topics) != 1 || topics[0].TopicID != [16]byte{7} {
				t.Fatalf("%+v", topics)
			}
		}
	})

	for name, c := range map[string]struct {
		response []byte
		err      string
	}{
		"nothing":                      {nil, "EOF"},
		"half a length":                {[]byte{0, 0}, "EOF"},
		"a length of nothing":          {[]byte{0, 0, 0, 0}, "a length of 0 bytes"},
		"a length without a body":      {[]byte{0, 0, 0, 3, 1, 2, 3}, "a length of 3 bytes"},
		"a negative length":            {[]byte{255, 255, 255, 255, 0}, "a length of 4294967295 bytes"},
		"one byte more than allowed":   {binary.BigEndian.AppendUint32(nil, maxResponse+1), "a length of"},
		"a body cut off":               {framed(1, body)[:20], "EOF"},
		"an answer to another":         {framed(2, append([]byte{noTags}, body...)), "correlation id 2"},
		"no header tags":               {framed(1, nil), "header tags"},
		"more tags than bytes":         {framed(1, bytes.Repeat([]byte{255}, 9)), "header tags"},
		"a tag longer than the answer": {framed(1, []byte{1, 0, 100, 'x'}), "header tags"},
		"an endless number":            {framed(1, bytes.Repeat([]byte{128}, 20)), "header tags"},
		"an answer cut off within":     {framed(1, append([]byte{noTags}, body[:10]...)), "decode response"},
		"a server of another protocol": {[]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), "a length of"},
		"an alert of TLS":              {[]byte{21, 3, 1, 0, 2, 2, 10}, "a length of"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			_, err := answered(metadata, c.response)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("error %v, want %q in it", err, c.err)
			}
		})
	}

	t.Run("takes no memory for what is only announced", func(t *testing.T) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := answered(metadata, append(binary.BigEndian.AppendUint32(nil, maxResponse), 0, 0, 0, 1))
		runtime.ReadMemStats(&after)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
			t.Fatalf("took %d bytes", took)
		}
	})

	t.Run("reads an answer larger than one step", func(t *testing.T) {
		fetch := kmsg.NewPtrFetchRequest()
		fetch.SetVersion(13)
		sent := fetch.ResponseKind().(*kmsg.FetchResponse)
		large := bytes.Repeat([]byte("0123456789"), 700_000)
		sent.Topics = []kmsg.FetchResponseTopic{{Partitions: []kmsg.FetchResponseTopicPartition{{RecordBatches: large}}}}
		got, err := answered(fetch, framed(1, append([]byte{noTags}, sent.AppendTo(nil)...)))
		if err != nil || !bytes.Equal(got.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches, large) {
			t.Fatal(err)
		}
	})

	t.Run("says when the request cannot be written", func(t *testing.T) {
		near, far := net.Pipe()
		far.Close()
		defer near.Close()
		if _, err := (&exchange{request: metadata}).RawExchange(near); err == nil || !strings.Contains(err.Error(), "write request") {
			t.Fatal(err)
		}
	})
}

// FuzzRawExchange gives each kind of request an answer of arbitrary bytes. It
// is read or refused, without a panic, and what is read of a fetch goes through
// the decoding of batches too.
func FuzzRawExchange(f *testing.F) {
	for i, r := range asked() {
		f.Add(uint8(i), framed(1, append([]byte{0}, r.ResponseKind().AppendTo(nil)...)))
		f.Add(uint8(i), framed(1, r.ResponseKind().AppendTo(nil)))
	}
	fetch := kmsg.FetchResponse{Version: 13, Topics: []kmsg.FetchResponseTopic{{Partitions: []kmsg.FetchResponseTopicPartition{{
		RecordBatches: plain("a", "b"), AbortedTransactions: []kmsg.FetchResponseTopicPartitionAbortedTransaction{{ProducerID: 1}},
	}}}}}
	f.Add(uint8(3), framed(1, append([]byte{0}, fetch.AppendTo(nil)...)))
	f.Add(uint8(3), []byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	decompressor := newDecompressor()
	f.Fuzz(func(t *testing.T, kind uint8, response []byte) {
		requests := asked()
		answer, err := answered(requests[int(kind)%len(requests)], response)
		if (answer == nil) == (err == nil) {
			t.Fatal("neither read nor refused")
		}
		got, ok := answer.(*kmsg.FetchResponse)
		if !ok {
			return
		}
		for _, topic := range got.Topics {
			for _, p := range topic.Partitions {
				fetched := decode(FetchFrom{Topic: "orders", Partition: p.Partition, Offset: 3}, &p, &allowance{decompressor, maxDecompressed})
				if fetched.Err == nil && len(p.RecordBatches) > 0 && fetched.Next == 3 {
					t.Fatal("the cursor stands still without an error")
				}
			}
		}
	})
}
