package stentor

// Stays connected: connects, comes back after every loss, and takes what came from the socket to the inbox.
//
// The delay before coming back is random between nothing and a bound that doubles (full jitter), or within the window that the server named.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// A connection of this long was a good one: the next loss begins with short delays again.
	goodAfter = 10 * time.Second
	// So many wrong tokens in a row, from a function that is asked for each, end it.
	wrongTokensMax = 3
	// After so long of much traffic the server is asked how far one has come, once it has shown that it gives cursors.
	cursorEvery = 3 * time.Second
	// How long the last publications may take when a client is closed, and the goodbye.
	goodbye = time.Second
)

// Answers to the handshake that another try won't change.
var hopeless = []int{400, 401, 403, 404, 405, 426}

// run makes connections, one after the other, until the client is closed or there is no hope.
func (c *Client) run() {
	defer close(c.done)
	for nth := 0; c.ctx.Err() == nil; nth++ {
		delay := c.connection(c.urls[nth%len(c.urls)])
		timer := time.NewTimer(delay)
		select {
		case <-c.ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// connection is one, to its end; it says how long to stay away then.
func (c *Client) connection(url string) time.Duration {
	ctx, cancel := context.WithTimeout(c.ctx, c.options.Patience)
	token, err := c.token(ctx)
	var opened *wire
	if err == nil {
		opened, err = dial(ctx, url, token, &c.options)
	} else {
		err = fmt.Errorf("there is no token: %w", err)
	}
	cancel()
	if err == nil {
		c.mutex.Lock()
		c.shown = token
		c.mutex.Unlock()
		return c.follow(url, opened)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("no answer")
	}
	c.mutex.Lock()
	c.trouble = fmt.Sprintf("%s: %v", url, err)
	isNew, trouble := !c.wasOpen, c.trouble
	c.mutex.Unlock()
	var refused *refusal
	if !errors.As(err, &refused) {
		return c.delay(0)
	}
	if isNew && slices.Contains(hopeless, refused.status) {
		c.finish(&Error{Code: "refused", Message: trouble})
	}
	return refused.retryAfter + c.delay(0)
}

// follow reads a connection to its end.
func (c *Client) follow(url string, opened *wire) time.Duration {
	began := time.Now()
	c.heardAt.Store(int64(time.Since(c.start)))
	c.mutex.Lock()
	c.wire = opened
	c.mutex.Unlock()
	defer context.AfterFunc(c.ctx, func() { opened.abort("this client was closed") })()
	go c.watch(opened)
	err := c.read(opened)
	code, why := opened.end(err)
	opened.abort(why)

	c.mutex.Lock()
	wasOpen, window, farewell := c.isOpen(), c.core.window, c.core.farewell
	c.core.window = nil
	if why == "" {
		why = farewell
	}
	if why == "" {
		why = "the connection ended"
	}
	c.trouble = fmt.Sprintf("%s: %s (%d)", url, why, code)
	c.wire = nil
	c.core.lost()
	if wasOpen {
		c.batch = append(c.batch, &Status{Code: "lost", Message: c.trouble})
	}
	_ = c.deliver()
	isGood := wasOpen && time.Since(began) > goodAfter
	isWrong := false
	if code == 4001 {
		if isGood {
			c.wrongTokens = 0
		}
		c.wrongTokens++
		isWrong = c.options.TokenFunc == nil || c.wrongTokens >= wrongTokensMax
	} else if wasOpen {
		c.wrongTokens = 0
	}
	c.mutex.Unlock()

	if isWrong {
		c.finish(&Error{Code: "unauthorized", Message: why})
	}
	if code == 4002 {
		// Who came back would replace the connection that has replaced this one.
		c.finish(&Error{Code: "replaced", Message: why})
	}
	if isGood {
		c.failures = 0
	}
	delay := c.delay(code)
	if window != nil {
		first, last := bounded(window.first/1000), bounded(window.last/1000)
		return first + time.Duration(rand.Float64()*float64(max(last-first, 0)))
	}
	return delay
}

// read takes messages until the end, and says what that was. While the inbox is full it leaves the socket alone.
func (c *Client) read(from *wire) error {
	for {
		for !c.inbox.hasRoom() {
			select {
			case <-c.inbox.room:
				c.heardAt.Store(int64(time.Since(c.start)))
			case <-from.ctx.Done():
				return from.ctx.Err()
			}
		}
		message, err := from.read()
		if err != nil {
			return err
		}
		now := time.Since(c.start)
		c.heardAt.Store(int64(now))
		c.mutex.Lock()
		if err = c.core.read(message); err != nil {
			from.abort(err.Error())
		} else if c.core.cursor != "" && c.core.hello != nil && now-c.cursorAt > cursorEvery {
			c.cursorAt = now
			_ = c.core.ask(map[string]any{"op": "ping"}, func(*fields, *Error) error { return nil })
		}
		tooSlow := c.deliver()
		isExpiring := c.core.expiring
		c.core.expiring = false
		c.mutex.Unlock()
		if tooSlow != nil {
			c.finish(tooSlow)
		}
		if isExpiring {
			go c.authenticate(from)
		}
		if err != nil {
			return err
		}
	}
}

// deliver takes what some messages came to, to the inbox. The caller has the lock.
func (c *Client) deliver() (tooSlow *Error) {
	if (c.core.hello != nil) != c.isOpen() {
		if c.core.hello != nil {
			c.wasOpen = true
			close(c.opened)
		} else {
			c.opened = make(chan struct{})
		}
	}
	if len(c.batch) == 0 {
		return nil
	}
	_, tooSlow = c.inbox.put(c.batch, c.core.topics.keyed)
	clear(c.batch)
	c.batch = c.batch[:0]
	return tooSlow
}

// isOpen: there is a connection, and the server has greeted. The caller has the lock.
func (c *Client) isOpen() bool {
	select {
	case <-c.opened:
		return true
	default:
		return false
	}
}

// act does something that the program asked for, outside of reading.
func (c *Client) act(what func() error) {
	c.mutex.Lock()
	err := what()
	if err != nil && c.wire != nil {
		c.wire.abort(err.Error())
	}
	tooSlow := c.deliver()
	c.mutex.Unlock()
	if tooSlow != nil {
		c.finish(tooSlow)
	}
}

// delay is how long to stay away: random, so that many clients don't come back at one moment.
func (c *Client) delay(code int) time.Duration {
	least, most := c.options.BackoffLeast, c.options.BackoffMost
	failures := c.failures
	c.failures = min(failures+1, 32)
	// We were told that we ask too much, or that there is no room: nothing is gained by asking soon.
	if code == 1013 || code == 4003 {
		return most/2 + time.Duration(rand.Float64()*float64(most)/2)
	}
	bound := min(float64(most), float64(least)*float64(uint64(1)<<failures))
	return time.Duration(rand.Float64() * bound)
}

// watch: a server says something, if only a heartbeat, or it is gone.
func (c *Client) watch(over *wire) {
	for {
		c.mutex.Lock()
		greeting := c.core.hello
		c.mutex.Unlock()
		silence := c.options.Patience
		if greeting != nil {
			silence = bounded(greeting.heartbeat * 2)
		}
		pause := time.Second
		if silence > 0 {
			pause = max(min(silence/8, pause), time.Millisecond)
		}
		timer := time.NewTimer(pause)
		select {
		case <-over.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if greeting != nil && silence == 0 || !c.inbox.hasRoom() {
			continue
		}
		if time.Since(c.start)-time.Duration(c.heardAt.Load()) > silence {
			why := "the server did not greet"
			if greeting != nil {
				why = fmt.Sprintf("nothing was heard for %v", silence)
			}
			over.abort(why)
			return
		}
	}
}

func (c *Client) token(ctx context.Context) (string, error) {
	if c.options.TokenFunc == nil {
		return c.options.Token, nil
	}
	return c.options.TokenFunc(ctx)
}

// authenticate shows another token: the one that there is, is about to expire. If none is to be had, the server says the rest.
func (c *Client) authenticate(on *wire) {
	ctx, cancel := context.WithTimeout(on.ctx, c.options.Patience)
	defer cancel()
	token, err := c.token(ctx)
	if err != nil || token == "" {
		return
	}
	c.act(func() error {
		// The same one again would change nothing.
		if c.wire != on || token == c.shown {
			return nil
		}
		c.shown = token
		return c.core.ask(map[string]any{"op": "auth", "token": token}, func(*fields, *Error) error { return nil })
	})
}

// finish: there will be no connection any more.
func (c *Client) finish(err *Error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.end != nil {
		return
	}
	c.end = err
	c.inbox.end(err)
	c.cancel()
	if c.wire != nil {
		c.wire.abort(err.Error())
	}
}
