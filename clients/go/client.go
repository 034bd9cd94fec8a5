// Package stentor is a client of Stentor, a server that broadcasts market data over WebSocket.
//
// It stays connected: after a loss it comes back after a random and growing delay, subscribes again, and goes on where it was left, or says what is missing. It holds
// no more than Options says, also when the program is slower than the feed.
package stentor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A Mode is how publications are delivered.
type Mode string

const (
	// All is every publication.
	All Mode = "all"
	// Latest is the newest value of each topic, when one is slow.
	Latest Mode = "latest"
)

// How is what one wants of names. The zero value is every publication, behind the last values.
type How struct {
	// All, if it is empty.
	Mode Mode
	// With Latest: at most so many updates a second of each topic; 0 is no bound.
	Rate float64
	// Don't begin with the last values.
	NoSnapshot bool
	// Begin here: what Client.Cursor was on another day.
	Cursor string
	// Begin behind these publications of some topics.
	Points map[string]Point
}

func (h How) mode() Mode {
	if h.Mode == "" {
		return All
	}
	return h.Mode
}

// Options are a client's settings. Zero values stand for what is written behind them.
type Options struct {
	// Shown at each connecting.
	Token string
	// Asked for a token at each connecting, and before the old one expires, instead.
	TokenFunc func(context.Context) (string, error)
	// Further addresses of servers that have the same feed: after a loss the next one is tried.
	Others []string
	// What happens when the program leaves BufferBytes of events lying; Wait.
	WhenSlow WhenSlow
	// 64 MiB.
	BufferBytes int
	// Topics whose place is remembered; further ones come just the same, but are neither checked for gaps nor resumed one by one. 100,000.
	TopicsMax int
	// Publications that may wait for their answer; 1,000.
	PublishesMax int
	// Bytes of one message of the server; 16 MiB.
	MessageMax int
	// First and last bound of the random delay before coming back; 0.5 s and 15 s.
	BackoffLeast, BackoffMost time.Duration
	// How long one try may take, and the server's greeting; 10 s.
	Patience time.Duration
	// For a proxy, or certificates of one's own; http.DefaultClient.
	HTTPClient *http.Client
	// Compression isn't offered to the server.
	NoCompression bool
}

func or[T comparable](given, otherwise T) T {
	var zero T
	if given == zero {
		return otherwise
	}
	return given
}

func (o Options) filled() Options {
	o.BufferBytes = or(o.BufferBytes, 64<<20)
	o.TopicsMax = or(o.TopicsMax, 100_000)
	o.PublishesMax = or(o.PublishesMax, 1000)
	o.MessageMax = or(o.MessageMax, 16<<20)
	o.BackoffLeast = or(o.BackoffLeast, 500*time.Millisecond)
	o.BackoffMost = or(o.BackoffMost, 15*time.Second)
	o.Patience = or(o.Patience, 10*time.Second)
	return o
}

// A Client is connections to a server, one after the other; made by Connect. Any goroutine may use it; one at a time takes events.
type Client struct {
	options Options
	urls    []string
	start   time.Time
	ctx     context.Context // of all that goes on
	cancel  context.CancelFunc
	done    chan struct{} // run has ended
	inbox   *inbox
	room    chan struct{} // a word for each publication that has no answer
	heardAt atomic.Int64  // since start
	// Of whoever runs.
	failures, wrongTokens int
	cursorAt              time.Duration

	mutex   sync.Mutex
	core    *core
	wire    *wire
	batch   []Event
	opened  chan struct{} // closed while there is a connection, and the server has greeted
	wasOpen bool
	end     *Error // why there will be no connection any more
	trouble string // what was wrong the last time
	shown   string // the token that the server was shown last

	// Of whoever takes events.
	taken  []Event
	buffer []Event
	cursor atomic.Pointer[string]
	events struct {
		once    sync.Once
		channel chan Event
	}
}

// Connect connects to a server, such as "wss://md.example/ws", and stays connected until Close. The context bounds the first connection only; without a
// deadline it is tried for ever. What can't be had in time is an *Error with the code "unreachable"; what the server doesn't want, "refused" or "unauthorized".
func Connect(ctx context.Context, url string, options Options) (*Client, error) {
	client := &Client{
		options: options.filled(), start: time.Now(), done: make(chan struct{}), opened: make(chan struct{}),
		inbox: newInbox(or(options.BufferBytes, 64<<20), options.WhenSlow),
		room:  make(chan struct{}, or(options.PublishesMax, 1000)),
	}
	for _, text := range append([]string{url}, options.Others...) {
		address, err := addressOf(text)
		if err != nil {
			return nil, err
		}
		client.urls = append(client.urls, address)
	}
	client.ctx, client.cancel = context.WithCancel(context.Background())
	emit := func(event Event) { client.batch = append(client.batch, event) }
	send := func(text []byte) {
		if client.wire != nil {
			client.wire.send(text)
		}
	}
	client.core = newCore(emit, send, client.options.TopicsMax, func() {})
	go client.run()
	if err := client.waitOpen(ctx); err != nil {
		client.mutex.Lock()
		trouble, end := client.trouble, client.end
		client.mutex.Unlock()
		client.Close()
		if end != nil {
			return nil, end
		}
		return nil, &Error{Code: "unreachable", Message: fmt.Sprintf("%s (%v)", or(trouble, url+": no answer"), err)}
	}
	return client, nil
}

// waitOpen waits for a connection, or for the reason why there will be none.
func (c *Client) waitOpen(ctx context.Context) error {
	for {
		c.mutex.Lock()
		opened, end := c.opened, c.end
		c.mutex.Unlock()
		if end != nil {
			return end
		}
		select {
		case <-opened:
			return nil
		default:
		}
		select {
		case <-opened:
			return nil
		case <-c.ctx.Done():
			if c.failed() == nil {
				return errClosed
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errClosed = &Error{Code: "closed", Message: "this client was closed"}

// failed says why there will be no connection any more, if that is so.
func (c *Client) failed() *Error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.end
}

// ---- Events ----------------------------------------------------------------------------------------------------------------------------------------------------

// Next is the next event; it waits for it. An *Error among the events is about what it names, and more come behind it; the error beside them is the context's, or
// says that there will be none: its code is "closed", if that was by Close.
func (c *Client) Next(ctx context.Context) (Event, error) {
	for {
		for len(c.taken) > 0 {
			event := c.taken[0]
			c.taken[0] = nil
			c.taken = c.taken[1:]
			if mark, is := event.(mark); is {
				c.cursor.Store(&mark.cursor)
				continue
			}
			return event, nil
		}
		isOver := false
		if c.buffer, isOver = c.inbox.take(c.buffer); len(c.buffer) > 0 {
			c.taken = c.buffer
			continue
		}
		if isOver {
			if err := c.Err(); err != nil {
				return nil, err
			}
			return nil, errClosed
		}
		select {
		case <-c.inbox.news:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Events gives the events to a channel, which is closed when there will be none; Err says why. Take them by this or by Next, not both. It costs more than Next.
func (c *Client) Events() <-chan Event {
	c.events.once.Do(func() {
		c.events.channel = make(chan Event)
		go func() {
			defer close(c.events.channel)
			// Until there is nothing more; or nobody takes what is left of a client that was closed.
			for {
				event, err := c.Next(context.Background())
				if err != nil {
					return
				}
				select {
				case c.events.channel <- event:
				case <-c.ctx.Done():
					select {
					case c.events.channel <- event:
					case <-time.After(goodbye):
						return
					}
				}
			}
		}()
	})
	return c.events.channel
}

// Err says why there will be no connection any more; nil while there may be one, and after Close.
func (c *Client) Err() error {
	if end := c.failed(); end != nil && end != errClosed {
		return end
	}
	return nil
}

// Cursor is a place for How.Cursor on another day, if the server gives any: what was to be told before it, this program has taken.
func (c *Client) Cursor() string {
	if cursor := c.cursor.Load(); cursor != nil {
		return *cursor
	}
	return ""
}

// ---- Subscribing, publishing -----------------------------------------------------------------------------------------------------------------------------------

// Subscribe subscribes to topics and patterns, now or as soon as there is a connection, and again after every loss. A name that one has gets a new mode or rate. What
// the server refuses comes as an *Error among the events; what can't be meant is returned.
func (c *Client) Subscribe(how How, names ...string) error {
	switch {
	case len(names) == 0:
		return errors.New("names: expected at least one, found none")
	case how.mode() != All && how.mode() != Latest:
		return fmt.Errorf("how.Mode: expected %q or %q, found %q", All, Latest, how.Mode)
	case how.Rate < 0 || math.IsNaN(how.Rate) || math.IsInf(how.Rate, 0):
		return fmt.Errorf("how.Rate: expected a number above 0, found %v", how.Rate)
	case how.Rate != 0 && how.mode() != Latest:
		return fmt.Errorf("how.Rate: it goes with %q only", Latest)
	}
	if end := c.failed(); end != nil {
		return end
	}
	seen := map[string]bool{}
	var list []string
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			list = append(list, name)
		}
	}
	c.act(func() error { return c.core.subscribe(list, how) })
	return nil
}

// Unsubscribe ends subscriptions, named as they were made. What had come before is still told.
func (c *Client) Unsubscribe(names ...string) {
	c.act(func() error {
		c.core.unsubscribe(names)
		return nil
	})
}

// Subscriptions are the names that are subscribed to, and what the server has agreed to, if it has by now.
func (c *Client) Subscriptions() map[string]*Subscribed {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	found := map[string]*Subscribed{}
	for name, want := range c.core.topics.wants {
		found[name] = want.agreed
	}
	return found
}

// A Publication is one that was sent, and may have no answer yet.
type Publication struct {
	done    chan struct{}
	receipt Receipt
	err     error
}

// Done is closed as soon as there is an answer, or there will be none.
func (p *Publication) Done() <-chan struct{} { return p.done }

// Wait waits for the server's answer. An *Error says what it refused; after "disconnected" nobody knows whether it took it. Nothing is repeated by itself.
func (p *Publication) Wait(ctx context.Context) (Receipt, error) {
	select {
	case <-p.done:
		return p.receipt, p.err
	default:
	}
	select {
	case <-p.done:
		return p.receipt, p.err
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// Publish publishes a value as JSON, as encoding/json writes it. It waits for a connection, and while PublishesMax publications wait for their answer.
func (c *Client) Publish(ctx context.Context, topic string, value any) (*Publication, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return c.PublishRaw(ctx, topic, raw)
}

// PublishRaw publishes JSON text as it is, so that 1.50 stays 1.50; else as Publish.
func (c *Client) PublishRaw(ctx context.Context, topic string, raw []byte) (*Publication, error) {
	// Room that there is, is taken whatever the context says: what it ends is waiting.
	select {
	case c.room <- struct{}{}:
		return c.publish(ctx, topic, raw)
	default:
	}
	select {
	case c.room <- struct{}{}:
		return c.publish(ctx, topic, raw)
	case <-ctx.Done():
		return nil, fmt.Errorf("%d publications wait for their answer: %w", cap(c.room), ctx.Err())
	}
}

// publish has room.
func (c *Client) publish(ctx context.Context, topic string, raw []byte) (*Publication, error) {
	if err := c.waitOpen(ctx); err != nil {
		<-c.room
		if ctx.Err() != nil {
			err = fmt.Errorf("there is no connection: %w", err)
		}
		return nil, err
	}
	publication := &Publication{done: make(chan struct{})}
	c.act(func() error {
		c.core.publish(topic, raw, func(receipt Receipt, err *Error) {
			publication.receipt = receipt
			if err != nil {
				publication.err = err
			}
			close(publication.done)
			<-c.room
		})
		return nil
	})
	return publication, nil
}

// Ping is the time to the server and back, behind everything that is on its way.
func (c *Client) Ping(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	done := make(chan error, 1)
	c.act(func() error {
		return c.core.ask(map[string]any{"op": "ping"}, func(_ *fields, err *Error) error {
			if err != nil {
				done <- err
			} else {
				done <- nil
			}
			return nil
		})
	})
	select {
	case err := <-done:
		return time.Since(began), err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Snapshot is the last value of every topic that the names stand for, at this moment; over a connection of its own, whatever is subscribed to. Complete, because the
// answer to a ping comes behind them.
func (c *Client) Snapshot(ctx context.Context, names ...string) (map[string]*Update, error) {
	if end := c.failed(); end != nil {
		return nil, end
	}
	if len(names) == 0 {
		return nil, errors.New("names: expected at least one, found none")
	}
	var trouble error
	for _, url := range c.urls {
		values, err := c.fetch(ctx, url, names)
		var said *Error
		if err == nil || errors.As(err, &said) || ctx.Err() != nil {
			return values, err
		}
		trouble = &Error{Code: "unreachable", Message: fmt.Sprintf("%s: %v", url, err)}
	}
	return nil, trouble
}

func (c *Client) fetch(ctx context.Context, url string, names []string) (map[string]*Update, error) {
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	opened, err := dial(ctx, url, token, &c.options)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { opened.abort(ctx.Err().Error()) })()
	defer opened.close(goodbye / 2)
	values := map[string]*Update{}
	isDone := false
	var refused *Error
	core := newCore(func(event Event) {
		switch event := event.(type) {
		case *Update:
			values[event.Topic] = event
		case *Error:
			refused = event
		}
	}, opened.send, 0, func() { isDone = true })
	// The slowest rate there is: of what comes behind the last values nothing is wanted.
	_ = core.subscribe(names, How{Mode: Latest, Rate: 0.001})
	for !isDone && refused == nil {
		message, err := opened.read()
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			code, why := opened.end(err)
			kind := "disconnected"
			if code == 4001 {
				kind = "unauthorized"
			}
			return nil, &Error{Code: kind, Message: fmt.Sprintf("%s (%d)", or(why, core.farewell), code)}
		}
		if err := core.read(message); err != nil {
			return nil, err
		}
	}
	if refused != nil {
		return nil, refused
	}
	return values, nil
}

// ---- The end ---------------------------------------------------------------------------------------------------------------------------------------------------

// Close says goodbye, and stays away. What was published before is sent, if the server takes it within a second; what waits for an answer is told that there is none.
func (c *Client) Close() {
	c.mutex.Lock()
	isFirst := c.end == nil
	if isFirst {
		c.end = errClosed
	}
	open := c.wire
	c.mutex.Unlock()
	if isFirst {
		c.inbox.end(nil)
		if open != nil {
			ctx, cancel := context.WithTimeout(open.ctx, goodbye)
			open.flush(ctx)
			cancel()
			open.close(goodbye)
		}
		c.cancel()
	}
	<-c.done
}
