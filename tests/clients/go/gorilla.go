// The conversation of ../README.md with gorilla/websocket.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
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

func check(good bool, expected, found any) {
	if !good {
		must(fmt.Errorf("expected %v, found %v", expected, found))
	}
}

type message struct {
	kind int
	data []byte
}

// A connection; a goroutine reads, which is also what answers pings.
type socket struct {
	*websocket.Conn
	messages chan message
	pongs    chan string
	closed   chan int
}

func open(url string, protocols ...string) *socket {
	dialer := websocket.Dialer{Subprotocols: protocols, HandshakeTimeout: patience}
	conn, _, err := dialer.Dial(url, nil)
	must(err)
	s := &socket{conn, make(chan message, 64), make(chan string, 1), make(chan int, 1)}
	conn.SetPongHandler(func(payload string) error { s.pongs <- payload; return nil })
	go func() {
		for {
			kind, data, err := conn.ReadMessage()
			if err != nil {
				var ended *websocket.CloseError
				if errors.As(err, &ended) {
					s.closed <- ended.Code
				} else {
					s.closed <- websocket.CloseAbnormalClosure
				}
				return
			}
			s.messages <- message{kind, data}
		}
	}()
	return s
}

func (s *socket) next() message {
	select {
	case m := <-s.messages:
		return m
	case <-time.After(patience):
		must(errors.New("expected a message, found none"))
	}
	panic("not reached")
}

// The next message of this type.
func (s *socket) until(kind string) map[string]any {
	for {
		var fields map[string]any
		must(json.Unmarshal(s.next().data, &fields))
		check(fields["type"] != "error", kind, fields["message"])
		if fields["type"] == kind {
			return fields
		}
	}
}

func (s *socket) say(command map[string]any) { must(s.WriteJSON(command)) }

func (s *socket) closedWith(code int) {
	select {
	case found := <-s.closed:
		check(found == code, code, found)
	case <-time.After(patience):
		must(errors.New("expected an end, found none"))
	}
}

func main() {
	fmt.Printf("gorilla/websocket %s (%s)\n", version("github.com/gorilla/websocket"), runtime.Version())
	base, topic := os.Args[1], "clients.go"

	ws := open(base+"/ws", "stentor.v1.json")
	check(ws.until("hello")["version"] == 1.0, "version 1", "another")
	ws.say(map[string]any{"op": "sub", "id": 1, "topics": []string{topic}})
	check(ws.until("ack")["id"] == 1.0, "id 1", "another")
	ws.say(map[string]any{"op": "pub", "topic": topic, "data": map[string]any{"bid": 1.5}})
	data := ws.until("update")["data"].(map[string]any)
	check(data["bid"] == 1.5, 1.5, data["bid"])

	raw := open(base + "/raw/" + topic)
	must(raw.WriteMessage(websocket.TextMessage, []byte("grüße")))
	text := raw.next()
	check(text.kind == websocket.TextMessage && string(text.data) == "grüße", "grüße", text)
	found := ws.until("update")["data"]
	check(found == "grüße", "grüße", found)
	payload := []byte{0, 255, 1, 2}
	must(raw.WriteMessage(websocket.BinaryMessage, payload))
	binary := raw.next()
	check(binary.kind == websocket.BinaryMessage && bytes.Equal(binary.data, payload), payload, binary)
	found = ws.until("update")["base64"]
	check(found == base64.StdEncoding.EncodeToString(payload), payload, found)

	must(ws.WriteMessage(websocket.PingMessage, []byte("?")))
	select {
	case pong := <-ws.pongs:
		check(pong == "?", "?", pong)
	case <-time.After(patience):
		must(errors.New("expected a pong, found none"))
	}
	ws.say(map[string]any{"op": "ping", "id": "p"})
	check(ws.until("pong")["id"] == "p", "p", "another")
	for beats := 0; beats < 3; beats++ {
		ws.until("heartbeat")
	}

	must(raw.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")))
	raw.closedWith(1000)
	must(ws.WriteMessage(websocket.BinaryMessage, payload))
	ws.closedWith(1003)
}
