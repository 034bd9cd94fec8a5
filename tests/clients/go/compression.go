// gorilla/websocket with compression, of which it offers one kind, and without.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

const patience = 20 * time.Second

type conn struct {
	*websocket.Conn
	name string
	sent int
}

func (c *conn) String() string { return c.name }

func (c *conn) send(text string) {
	// By turns, compressed and not, where it may be.
	c.EnableWriteCompression(c.sent%3 != 0)
	c.sent++
	must(c.WriteMessage(websocket.TextMessage, []byte(text)))
}

func (c *conn) next() string {
	must(c.SetReadDeadline(time.Now().Add(patience)))
	_, got, err := c.ReadMessage()
	must(err)
	return string(got)
}

func (c *conn) close() {
	must(c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")))
}

// Opens a connection, which offers compression or doesn't, and to which it is to be given or isn't.
func open(url, name string, offered, given bool) *conn {
	dialer := websocket.Dialer{EnableCompression: offered, HandshakeTimeout: patience}
	opened, answer, err := dialer.Dial(url, nil)
	must(err)
	agreed := answer.Header.Get("Sec-WebSocket-Extensions")
	check(strings.HasPrefix(agreed, "permessage-deflate") == given, "%s: agreed on %q", name, agreed)
	return &conn{Conn: opened, name: name}
}

func main() {
	fmt.Printf("gorilla/websocket %s, compression (%s)\n", version("github.com/gorilla/websocket"), runtime.Version())
	compress(os.Args[1], "gorilla", func(url string) []client {
		if strings.Contains(url, "?") {
			return []client{open(url, "declined", true, false)}
		}
		fastest := open(url, "fastest", true, true)
		must(fastest.SetCompressionLevel(1))
		return []client{open(url, "compressed", true, true), open(url, "clear", false, false), open(url+"?compress=0", "declined", true, false), fastest}
	})
}
