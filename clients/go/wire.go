package stentor

// One WebSocket: how it is opened, what is waiting to be written, and how it ends. The library does the rest.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// refusal is an answer that is no WebSocket.
type refusal struct {
	status     int
	message    string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.status, r.message) }

// abnormal is how a connection ends that broke without a close frame (RFC 6455, section 7.1.5).
const abnormal = 1006

// A wire is a connection.
type wire struct {
	conn   *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc

	mutex   sync.Mutex
	queue   [][]byte
	news    chan struct{} // there is something to write
	empty   chan struct{} // everything was written, once somebody waits for that
	why     string        // of an end that was ours
	message bytes.Buffer
}

// dial opens a wire, which lives on behind its context's end.
func dial(ctx context.Context, address, token string, options *Options) (*wire, error) {
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	mode := websocket.CompressionContextTakeover
	if options.NoCompression {
		mode = websocket.CompressionDisabled
	}
	conn, answer, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient: options.HTTPClient, HTTPHeader: header, Subprotocols: []string{"stentor.v1.json"}, CompressionMode: mode,
	})
	if err != nil {
		if answer == nil || answer.StatusCode == http.StatusSwitchingProtocols {
			return nil, err
		}
		said := ""
		if answer.Body != nil {
			text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
			said = strings.TrimSpace(string(text))
		}
		if said == "" {
			said = http.StatusText(answer.StatusCode)
		}
		seconds, _ := strconv.ParseFloat(answer.Header.Get("Retry-After"), 64)
		return nil, &refusal{answer.StatusCode, said, bounded(seconds)}
	}
	conn.SetReadLimit(int64(options.MessageMax))
	w := &wire{conn: conn, news: make(chan struct{}, 1), empty: make(chan struct{}, 1)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	go w.write()
	return w, nil
}

// send queues a message. How much may be queued its owner bounds, by the answers that it waits for.
func (w *wire) send(text []byte) {
	w.mutex.Lock()
	w.queue = append(w.queue, text)
	w.mutex.Unlock()
	tell(w.news)
}

func (w *wire) write() {
	for {
		w.mutex.Lock()
		queue := w.queue
		w.queue = nil
		w.mutex.Unlock()
		if queue == nil {
			tell(w.empty)
			select {
			case <-w.news:
				continue
			case <-w.ctx.Done():
				return
			}
		}
		for _, text := range queue {
			if w.conn.Write(w.ctx, websocket.MessageText, text) != nil {
				w.cancel() // The reader hears of it by the connection's end.
				return
			}
		}
	}
}

// flush waits until what was sent is written, or the context's end.
func (w *wire) flush(ctx context.Context) {
	for {
		w.mutex.Lock()
		select {
		case <-w.empty: // of before
		default:
		}
		isEmpty := w.queue == nil
		w.mutex.Unlock()
		tell(w.news)
		select {
		case <-w.empty:
			if isEmpty {
				return
			}
		case <-w.ctx.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}

// read is the next message, which is good until the next one is read.
func (w *wire) read() ([]byte, error) {
	kind, reader, err := w.conn.Reader(w.ctx)
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageText {
		return nil, &broken{"the server sent what is not text"}
	}
	w.message.Reset()
	if _, err := w.message.ReadFrom(reader); err != nil {
		return nil, err
	}
	return w.message.Bytes(), nil
}

// abort ends it without waiting for anybody's consent.
func (w *wire) abort(why string) {
	w.mutex.Lock()
	if w.why == "" {
		w.why = why
	}
	w.mutex.Unlock()
	w.cancel()
	go w.conn.CloseNow()
}

// close says goodbye, and waits for the other side's, for some time.
func (w *wire) close(patience time.Duration) {
	done := make(chan struct{})
	go func() {
		_ = w.conn.Close(websocket.StatusNormalClosure, "")
		close(done)
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	w.abort("")
}

// end says with which code it has ended, and why.
func (w *wire) end(err error) (int, string) {
	w.mutex.Lock()
	why := w.why
	w.mutex.Unlock()
	var frame websocket.CloseError
	switch {
	case why != "":
		return abnormal, why
	case errors.As(err, &frame):
		return int(frame.Code), frame.Reason
	default:
		return abnormal, err.Error()
	}
}

// addressOf is an address as it is connected to: http stands for ws, and no path for /ws.
func addressOf(text string) (string, error) {
	found, err := url.Parse(text)
	if err == nil {
		switch found.Scheme {
		case "http":
			found.Scheme = "ws"
		case "https":
			found.Scheme = "wss"
		}
	}
	if err != nil || found.Hostname() == "" || found.Scheme != "ws" && found.Scheme != "wss" {
		return "", &Error{Code: "bad_address", Message: fmt.Sprintf("expected something like wss://host/ws, found %q", text)}
	}
	if strings.Trim(found.Path, "/") == "" {
		found.Path = "/ws"
	}
	found.Fragment = ""
	return found.String(), nil
}

// bounded is what a server says in seconds, if it is a time at all.
func bounded(seconds float64) time.Duration {
	// So long one may be sent away for.
	const most = 600.0
	if !(seconds > 0) {
		return 0
	}
	return time.Duration(min(seconds, most) * float64(time.Second))
}
