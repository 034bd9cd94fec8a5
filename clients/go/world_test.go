package stentor_test

// A Stentor of one's own, a link to it that can be stalled and cut, and a book as a program keeps one.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stentor"
)

// After so long a test has failed.
const patience = 20 * time.Second

var soon = stentor.Options{BackoffLeast: 10 * time.Millisecond, BackoffMost: 50 * time.Millisecond}

type server struct {
	t       *testing.T
	process *exec.Cmd
	port    string
	secure  string // The port for TLS, if it listens there.
	ended   chan struct{}
}

var listening = regexp.MustCompile(`listening on (https?)://127\.0\.0\.1:(\d+)/`)

// serve starts the program that STENTOR names, on a port of its own unless one is given.
func serve(t *testing.T, port string, args ...string) *server {
	t.Helper()
	program := os.Getenv("STENTOR")
	if program == "" {
		t.Skip("STENTOR names no server")
	}
	s := &server{t: t, ended: make(chan struct{})}
	s.process = exec.Command(program, append([]string{"--listen", "127.0.0.1:" + port, "--workers", "1", "--pin", "none"}, args...)...)
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "STENTOR") {
			s.process.Env = append(s.process.Env, setting)
		}
	}
	log, err := s.process.StderrPipe()
	check(t, err)
	check(t, s.process.Start())
	lines := bufio.NewScanner(log)
	wantsTLS := slices.Contains(args, "--tls-listen")
	for (s.port == "" || wantsTLS && s.secure == "") && lines.Scan() {
		if found := listening.FindStringSubmatch(lines.Text()); found != nil {
			if found[1] == "https" {
				s.secure = found[2]
			} else {
				s.port = found[2]
			}
		}
	}
	if s.port == "" || wantsTLS && s.secure == "" {
		t.Fatal("the server ended before it listened")
	}
	go func() {
		_, _ = io.Copy(io.Discard, log) // Read on, or its log blocks it.
		_ = s.process.Wait()
		close(s.ended)
	}()
	t.Cleanup(func() { s.end(os.Kill) })
	return s
}

func (s *server) url() string { return "ws://127.0.0.1:" + s.port + "/ws" }

func (s *server) end(how os.Signal) {
	_ = s.process.Process.Signal(how)
	<-s.ended
}

// publish takes pairs of a topic and a value, over HTTP: not through what is tested.
func (s *server) publish(publications ...any) {
	s.t.Helper()
	var lines bytes.Buffer
	for at := 0; at < len(publications); at += 2 {
		check(s.t, json.NewEncoder(&lines).Encode(map[string]any{"topic": publications[at], "data": publications[at+1]}))
	}
	answer, err := http.Post("http://127.0.0.1:"+s.port+"/publish", "application/x-ndjson", &lines)
	check(s.t, err)
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s", answer.Status, text)
	}
}

// values are what the server has, topic by topic.
func (s *server) values() map[string]string {
	s.t.Helper()
	var list struct {
		Topics []struct{ Topic string }
	}
	s.get("/topics", &list)
	values := map[string]string{}
	for _, one := range list.Topics {
		var value struct{ Data json.RawMessage }
		s.get("/topics/"+one.Topic, &value)
		values[one.Topic] = string(value.Data)
	}
	return values
}

func (s *server) get(path string, into any) {
	answer, err := http.Get("http://127.0.0.1:" + s.port + path)
	check(s.t, err)
	defer answer.Body.Close()
	check(s.t, json.NewDecoder(answer.Body).Decode(into))
}

// A link is TCP to a port.
type link struct {
	listener net.Listener
	to       string
	mutex    sync.Mutex
	sockets  map[net.Conn]bool
	flows    chan struct{} // closed while it does
}

func linkTo(t *testing.T, port string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	l := &link{listener: listener, to: "127.0.0.1:" + port, sockets: map[net.Conn]bool{}, flows: make(chan struct{})}
	close(l.flows)
	go l.accept()
	t.Cleanup(func() {
		listener.Close()
		l.flow()
		l.cut()
	})
	return l
}

func (l *link) url() string { return "ws://" + l.listener.Addr().String() + "/ws" }

// stall: nothing goes through any more, and nobody is told.
func (l *link) stall() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.flows = make(chan struct{})
}

func (l *link) flow() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	select {
	case <-l.flows:
	default:
		close(l.flows)
	}
}

// cut ends all that there are, without a word.
func (l *link) cut() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for socket := range l.sockets {
		socket.Close()
	}
	clear(l.sockets)
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.to)
		if err != nil {
			near.Close()
			continue
		}
		l.mutex.Lock()
		l.sockets[near], l.sockets[far] = true, true
		l.mutex.Unlock()
		go l.pump(near, far)
		go l.pump(far, near)
	}
}

func (l *link) pump(one, other net.Conn) {
	defer one.Close()
	defer other.Close()
	buffer := make([]byte, 65536)
	for {
		count, err := one.Read(buffer)
		l.mutex.Lock()
		flows := l.flows
		l.mutex.Unlock()
		<-flows
		if _, wrong := other.Write(buffer[:count]); err != nil || wrong != nil {
			return
		}
	}
}

// A book is what a program knows of a feed: values, as far as they are good. It holds the events to what they promise: in mode All each number, else never an
// older one.
type book struct {
	t         *testing.T
	isGapless bool
	values    map[string]string
	at        map[string]uint64
	gaps      []*stentor.Gap
	resets    []*stentor.Reset
	seen      map[string][]uint64
}

func newBook(t *testing.T, isGapless bool) *book {
	return &book{t: t, isGapless: isGapless, values: map[string]string{}, at: map[string]uint64{}, seen: map[string][]uint64{}}
}

func (b *book) take(event stentor.Event) {
	b.t.Helper()
	switch event := event.(type) {
	case *stentor.Update:
		b.follows(event.Topic, event.Seq, event)
		b.at[event.Topic] = event.Seq
		b.values[event.Topic] = string(event.Raw)
		b.seen[event.Topic] = append(b.seen[event.Topic], event.Seq)
	case *stentor.Gap:
		b.follows(event.Topic, event.First, event)
		b.at[event.Topic] = event.Last
		delete(b.values, event.Topic)
		b.gaps = append(b.gaps, event)
	case *stentor.Reset:
		delete(b.at, event.Topic)
		delete(b.values, event.Topic)
		b.resets = append(b.resets, event)
	}
}

func (b *book) follows(topic string, seq uint64, event stentor.Event) {
	b.t.Helper()
	before, has := b.at[topic]
	if has && seq != before+1 && (seq <= before || b.isGapless) {
		b.t.Fatalf("%T %+v behind %d", event, event, before)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bound is a context that ends with the test, or when that has failed.
func bound(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, url string, options stentor.Options) *stentor.Client {
	t.Helper()
	client, err := stentor.Connect(bound(t), url, options)
	check(t, err)
	t.Cleanup(client.Close)
	return client
}

// until takes events until there is what was waited for.
func until(t *testing.T, client *stentor.Client, books *book, found func(stentor.Event) bool) []stentor.Event {
	t.Helper()
	ctx := bound(t)
	var events []stentor.Event
	for {
		event, err := client.Next(ctx)
		if err != nil {
			t.Fatalf("%v behind %s", err, told(events))
		}
		events = append(events, event)
		if books != nil {
			books.take(event)
		}
		if found(event) {
			return events
		}
	}
}

func value(topic string, data any) func(stentor.Event) bool {
	raw, _ := json.Marshal(data)
	return func(event stentor.Event) bool {
		update, is := event.(*stentor.Update)
		return is && update.Topic == topic && bytes.Equal(update.Raw, raw)
	}
}

func status(code string) func(stentor.Event) bool {
	return func(event stentor.Event) bool {
		status, is := event.(*stentor.Status)
		return is && status.Code == code
	}
}

func told(events []stentor.Event) string {
	var text strings.Builder
	for _, event := range events[max(0, len(events)-20):] {
		fmt.Fprintf(&text, "\n%T %+v", event, event)
	}
	return text.String()
}

// pending takes what has come, without waiting.
func pending(t *testing.T, client *stentor.Client) []stentor.Event {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var events []stentor.Event
	for {
		event, err := client.Next(ctx)
		if err != nil {
			return events
		}
		events = append(events, event)
	}
}
