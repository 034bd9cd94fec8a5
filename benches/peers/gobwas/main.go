// Command gobwas is a broadcast server as a careful author writes it in Go, with github.com/gobwas/ws: one goroutine a connection that writes.
//
// /sub/TOPIC,TOPIC subscribes, what is sent on /pub/TOPIC is published; on /pub each message begins with its topic and a blank.
// Usage: gobwas PORT, or gobwas version.
//
// As the library's README advises for broadcasts, a publication is framed once (ws.CompileFrame), and its bytes go to everybody. What has come by the time
// that a subscriber's turn is there goes out in one write. (gorilla/websocket has the same as PreparedMessage, but writes each message with a
// call of its own.) What a subscriber doesn't read is kept up to 64 MiB; beyond that it is cut off. The scheduler is given as many threads as
// there are cores: GOMAXPROCS, which whoever starts it sets.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// backlogMax is how many bytes a subscriber may be behind.
const backlogMax = 64 << 20

// subscriber is one connection, and what it is still to be sent.
type subscriber struct {
	conn    net.Conn
	mu      sync.Mutex
	pending []byte
	wake    chan struct{}
}

// send leaves a frame for the subscriber's own goroutine.
func (s *subscriber) send(frame []byte) {
	s.mu.Lock()
	s.pending = append(s.pending, frame...)
	behind := len(s.pending)
	s.mu.Unlock()
	if behind > backlogMax {
		s.conn.Close()
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends whatever there is, until there is nobody to send it to.
func (s *subscriber) write() {
	var batch []byte
	for range s.wake {
		s.mu.Lock()
		batch, s.pending = s.pending, batch[:0]
		s.mu.Unlock()
		if _, err := s.conn.Write(batch); err != nil {
			return
		}
	}
}

// hub knows who has subscribed to what.
type hub struct {
	mu     sync.RWMutex
	topics map[string]map[*subscriber]struct{}
}

func (h *hub) join(names []string, s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		if h.topics[name] == nil {
			h.topics[name] = map[*subscriber]struct{}{}
		}
		h.topics[name][s] = struct{}{}
	}
}

func (h *hub) leave(names []string, s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range names {
		delete(h.topics[name], s)
	}
}

func (h *hub) publish(name string, op ws.OpCode, payload []byte) {
	frame := ws.MustCompileFrame(ws.NewFrame(op, true, payload))
	h.mu.RLock()
	defer h.mu.RUnlock()
	for s := range h.topics[name] {
		s.send(frame)
	}
}

func (h *hub) subscribe(conn net.Conn, names []string) {
	s := &subscriber{conn: conn, wake: make(chan struct{}, 1)}
	h.join(names, s)
	go s.write()
	for {
		if _, _, err := wsutil.ReadClientData(conn); err != nil {
			break
		}
	}
	h.leave(names, s)
	close(s.wake)
}

func (h *hub) publisher(conn net.Conn, topic string) {
	from := struct {
		io.Reader
		io.Writer
	}{bufio.NewReaderSize(conn, 64<<10), conn}
	for {
		payload, op, err := wsutil.ReadClientData(from)
		if err != nil {
			return
		}
		name := topic
		if name == "" {
			first, rest, _ := bytes.Cut(payload, []byte(" "))
			name, payload = string(first), rest
		}
		h.publish(name, op, payload)
	}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	role, topic, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	conn, _, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return
	}
	defer conn.Close()
	if role == "sub" {
		h.subscribe(conn, strings.Split(topic, ","))
	} else {
		h.publisher(conn, topic)
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: gobwas PORT, or gobwas version")
	}
	if os.Args[1] == "version" {
		built, _ := debug.ReadBuildInfo()
		for _, module := range built.Deps {
			if module.Path == "github.com/gobwas/ws" {
				fmt.Println("gobwas/ws", module.Version, "built with", built.GoVersion)
			}
		}
		return
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], &hub{topics: map[string]map[*subscriber]struct{}{}}))
}
