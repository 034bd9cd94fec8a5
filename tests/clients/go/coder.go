// coder/websocket with compression, in both ways that it offers, and without.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const patience = 20 * time.Second

type conn struct {
	*websocket.Conn
	name string
}

func (c *conn) String() string { return c.name }

func (c *conn) send(text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(c.Write(ctx, websocket.MessageText, []byte(text)))
}

func (c *conn) next() string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, got, err := c.Read(ctx)
	must(err)
	return string(got)
}

func (c *conn) close() { _ = c.CloseNow() }

func open(url, name string, mode websocket.CompressionMode) *conn {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	opened, answer, err := websocket.Dial(ctx, url, &websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
	must(err)
	agreed := answer.Header.Get("Sec-WebSocket-Extensions")
	given := mode != websocket.CompressionDisabled && !strings.Contains(url, "?")
	check(strings.HasPrefix(agreed, "permessage-deflate") == given, "%s: agreed on %q", name, agreed)
	return &conn{opened, name}
}

func main() {
	fmt.Printf("coder/websocket %s, compression (%s)\n", version("github.com/coder/websocket"), runtime.Version())
	compress(os.Args[1], "coder", func(url string) []client {
		if strings.Contains(url, "?") {
			return []client{open(url, "declined", websocket.CompressionContextTakeover)}
		}
		clients := []client{open(url, "clear", websocket.CompressionDisabled), open(url, "alone", websocket.CompressionNoContextTakeover)}
		for n := range 9 {
			clients = append(clients, open(url, fmt.Sprintf("takeover %d", n), websocket.CompressionContextTakeover))
		}
		return clients
	})
}
