// gorilla/websocket with compression, of which it offers one kind, and without: clients of one topic, of which each publishes, and everybody gets the
// same.
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

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(good bool, format string, arguments ...any) {
	if !good {
		must(fmt.Errorf(format, arguments...))
	}
}

type client struct {
	*websocket.Conn
	name string
}

// Opens a connection, which offers compression or doesn't, and to which it is to be given or isn't.
func open(url, name string, offered, given bool) client {
	dialer := websocket.Dialer{EnableCompression: offered, HandshakeTimeout: patience}
	conn, answer, err := dialer.Dial(url, nil)
	must(err)
	agreed := answer.Header.Get("Sec-WebSocket-Extensions")
	check(strings.HasPrefix(agreed, "permessage-deflate") == given, "%s: agreed on %q", name, agreed)
	must(conn.SetReadDeadline(time.Now().Add(2 * patience)))
	return client{conn, name}
}

func texts(name string) []string {
	noise := make([]byte, 3000)
	for n := range noise {
		noise[n] = byte(33 + (7919*n*n+len(name))%90)
	}
	quotes := strings.Repeat(name+": {\"bid\":189.21,\"ask\":189.23,\"venue\":\"XNAS\"} grüße ", 20)
	return []string{name + ", short", quotes, string(noise)}
}

func main() {
	fmt.Printf("gorilla/websocket %s, compression (%s)\n", os.Getenv("GORILLA_VERSION"), runtime.Version())
	base := os.Args[1]
	url := base + "/raw/clients.compression.go." + base[:3]
	clients := []client{
		open(url, "compressed", true, true),
		open(url, "clear", false, false),
		open(url+"?compress=0", "declined", true, false),
		open(url, "fastest", true, true),
	}
	must(clients[3].SetCompressionLevel(1))
	for _, publisher := range clients {
		for nth, text := range texts(publisher.name) {
			// By turns, compressed and not, where it may be.
			publisher.EnableWriteCompression(nth != 0)
			must(publisher.WriteMessage(websocket.TextMessage, []byte(text)))
			for _, subscriber := range clients {
				_, got, err := subscriber.ReadMessage()
				must(err)
				check(string(got) == text, "%s got %.80q of %s", subscriber.name, got, publisher.name)
			}
		}
	}
	for _, client := range clients {
		must(client.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")))
	}
}
