package stentor

// What waits for the program, where a few bytes of the network are many of memory.

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// bombs is a server that sends so many updates of a topic, of which each comes to a thousand times its bytes on the wire; it says when all were sent.
func bombs(t *testing.T, count int, data string) (url string, sent chan struct{}) {
	sent = make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		conn, err := websocket.Accept(answer, request, &websocket.AcceptOptions{
			Subprotocols: []string{"stentor.v1.json"}, CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 1,
		})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := request.Context()
		say := func(text string) { _ = conn.Write(ctx, websocket.MessageText, []byte(text)) }
		say(`{"type":"hello","version":1,"server":"test","conn":"1","ts":1,"heartbeat":0}`)
		for {
			_, text, err := conn.Read(ctx)
			if err != nil {
				return
			}
			var command struct {
				Op string
				ID json.RawMessage
			}
			if json.Unmarshal(text, &command) != nil || command.Op != "sub" {
				continue
			}
			say(fmt.Sprintf(`{"type":"ack","id":%s,"topics":[{"topic":"a","mode":"all","epoch":"k","seq":0}]}`, command.ID))
			for seq := 1; seq <= count; seq++ {
				say(fmt.Sprintf(`{"type":"update","topic":"a","epoch":"k","seq":%d,"ts":%d,"data":"%s"}`, seq, seq, data))
			}
			close(sent)
		}
	}))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http") + "/ws", sent
}

func heap() uint64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

func TestMessagesThatInflateAThousandTimesAreHeldByWhatTheyComeTo(t *testing.T) {
	const count, most = 600, 300_000
	data := strings.Repeat("x", 50_000)
	for _, how := range []WhenSlow{Wait, Newest, Fail} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		url, sent := bombs(t, count, data)
		before := heap()
		client, err := Connect(ctx, url, Options{BufferBytes: most, WhenSlow: how})
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Subscribe(How{}, "a"); err != nil {
			t.Fatal(err)
		}
		held := func() int {
			client.inbox.mutex.Lock()
			defer client.inbox.mutex.Unlock()
			// One message beyond.
			if client.inbox.bytes > most+len(data)+eventBytes {
				t.Errorf("%d holds %d bytes", how, client.inbox.bytes)
			}
			return client.inbox.bytes
		}
		// The network holds all of it, 40 KB. So the client has had all that it wants when its inbox is full, or was.
		<-sent
		if how == Wait {
			for client.inbox.hasRoom() {
				time.Sleep(time.Millisecond)
			}
			held()
			if grown := int64(heap()) - int64(before); grown > 10<<20 {
				t.Errorf("%d MB for what is not wanted yet", grown>>20)
			}
		}
		for last := uint64(0); last < count; held() {
			event, err := client.Next(ctx)
			if how == Fail && err != nil {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch event := event.(type) {
			case *Update:
				if how == Wait && event.Seq != last+1 || len(event.Raw) != len(data)+2 {
					t.Fatalf("%d bytes of %d behind %d", len(event.Raw), event.Seq, last)
				}
				last = event.Seq
			case *Gap:
				if how != Newest || event.First != last+1 || event.Why != "slow" {
					t.Fatal(*event)
				}
			}
		}
		client.Close()
		cancel()
	}
}
