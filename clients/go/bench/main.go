// Bench takes updates through this client, by its channel or by Next, or through coder/websocket with encoding/json by hand, parses each payload into a struct and looks at a
// field: what scripts/drivers measures.
//
//	bench VARIANT URL COUNT…
//
// It writes "ready" when it has subscribed, and "done" behind as many updates as each count says.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"

	"github.com/coder/websocket"

	"stentor"
)

type quote struct {
	Bid, Ask     float64
	BidSz, AskSz int
	Venue        string
	Flags        []string
}

// counts are one after the other.
type counts struct {
	left int
	rest []string
}

func (c *counts) next() (isLast bool) {
	if len(c.rest) == 0 {
		return true
	}
	var err error
	c.left, err = strconv.Atoi(c.rest[0])
	must(err)
	c.rest = c.rest[1:]
	return false
}

func (c *counts) tick(data []byte) (isLast bool) {
	var quote quote
	if err := json.Unmarshal(data, &quote); err != nil || quote.Bid == 0 {
		log.Fatal(err, quote)
	}
	c.left--
	if c.left > 0 {
		return false
	}
	fmt.Println("done")
	return c.next()
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func connected(url string) *stentor.Client {
	client, err := stentor.Connect(context.Background(), url, stentor.Options{NoCompression: true})
	must(err)
	must(client.Subscribe(stentor.How{}, "b.*"))
	_, err = client.Ping(context.Background())
	must(err)
	fmt.Println("ready")
	return client
}

func channel(url string, counts *counts) {
	for event := range connected(url).Events() {
		if update, is := event.(*stentor.Update); is && counts.tick(update.Raw) {
			return
		}
	}
}

func next(url string, counts *counts) {
	client := connected(url)
	for {
		event, err := client.Next(context.Background())
		must(err)
		if update, is := event.(*stentor.Update); is && counts.tick(update.Raw) {
			return
		}
	}
}

func bare(url string, counts *counts) {
	ctx := context.Background()
	socket, _, err := websocket.Dial(ctx, url, nil)
	must(err)
	must(socket.Write(ctx, websocket.MessageText, []byte(`{"op":"sub","topics":["b.*"]}`)))
	for {
		_, text, err := socket.Read(ctx)
		must(err)
		var message struct {
			Type, Topic string
			Seq         uint64
			TS          int64
			Data        json.RawMessage
		}
		must(json.Unmarshal(text, &message))
		if message.Type == "ack" {
			fmt.Println("ready")
		} else if message.Type == "update" && counts.tick(message.Data) {
			return
		}
	}
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("expected VARIANT URL COUNT…")
	}
	those := &counts{rest: os.Args[3:]}
	those.next()
	run := map[string]func(string, *counts){"channel": channel, "next": next, "coder/websocket": bare}[os.Args[1]]
	run(os.Args[2], those)
	_, err := io.ReadAll(os.Stdin)
	must(err)
}
